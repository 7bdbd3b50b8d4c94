"""A machine of files: a /proc and all else that the witness begins at, with whatever a test puts there."""

from saltext_selfheal.witness.asking import Deadline
from saltext_selfheal.witness.host import Host
from saltext_selfheal.witness.search import Search

PORT = 28015
SERVER = ("/usr/bin/rethinkdb", "--driver-port", str(PORT))


class Machine:
    """``host`` is for the witness. The machine was started 10,000 s ago, and its first process lives."""

    def __init__(self, folder):
        names = ("proc", "instances", "data", "run", "cgroups", "systemd")
        self.host = Host(**{name: folder / name for name in names}, kmsg=folder / "kmsg")
        self.proc = self.host.proc
        (self.proc / "net").mkdir(parents=True)
        (self.proc / "self").mkdir()
        self.put("uptime", "10000.00 9000.00\n")
        self.put("self/mounts", "proc /proc proc rw,nosuid 0 0\n")
        self.listen()
        self.process(1, ("/sbin/init",), parent=0)

    def put(self, path, text):
        """A file below /proc; what was there is replaced."""
        file = self.proc / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def process(
        self, pid, argv, parent=1, status="S", started_s=100, sockets=(), exe=None, name=None
    ):
        """A process; ``sockets`` are the inodes that it holds."""
        name = name or argv[0].rpartition("/")[2]
        fields = [status, parent, *[0] * 9, 250, 50, *[0] * 6, started_s * 100, 4096, 512, 0]
        self.put(f"{pid}/stat", f"{pid} ({name}) {' '.join(map(str, fields))}\n")
        self.put(f"{pid}/cmdline", "".join(f"{word}\0" for word in argv))
        self.put(f"{pid}/limits", "Limit  Soft  Hard  Units\nMax open files  1024  4096  files\n")
        fd = self.proc / str(pid) / "fd"
        fd.mkdir(exist_ok=True)
        for number, inode in enumerate(sockets, 3):
            (fd / str(number)).symlink_to(f"socket:[{inode}]")
        link = self.proc / str(pid) / "exe"
        link.unlink(missing_ok=True)
        link.symlink_to(exe or argv[0])
        net = self.proc / str(pid) / "net"
        if not net.exists():
            net.symlink_to(self.proc / "net")

    def listen(self, *rows, six=()):
        """``rows``: (port, inode) of the sockets that listen, on IPv4; ``six``: on IPv6."""
        head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n"
        for file, wanted, address in (("tcp", rows, "0100007F"), ("tcp6", six, "0" * 32)):
            lines = [_row(n, address, *row) for n, row in enumerate(wanted)]
            lines.append(_row(9, address, 28015, 99, state="01"))  # somebody is connected
            self.put(f"net/{file}", head + "".join(lines))

    def find(self, port=PORT, timeout_s=5, **more):
        return Search(self.host, port, Deadline(timeout_s), **more).find()


def _row(number, address, port, inode, state="0A"):
    return (
        f"   {number}: {address}:{port:04X} {'0' * len(address)}:0000 {state} "
        f"00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000 100 0 0 10 0\n"
    )
