"""The witness: what a minion can see of a database server on its own machine. Facts only; the engine judges them.

`testimony.testify` puts one dict together. It asks the service manager first, then looks for the server's process in
/proc (`search.find`), and then asks about disk, log and memory at the same time. Each question has a daemon thread of
its own (`asking`), because a read from a file system that hangs cannot be ended: what is not there in time is None,
which means "could not be told". Nothing is changed, and nothing is opened that could block or act when it is opened.

Linux only, and only /proc and files: no Salt, no pydantic, no psutil. What the service manager says comes through plain
functions that the caller hands in.
"""
