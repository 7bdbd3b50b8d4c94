"""For all tests alike."""

import logging


def pytest_unconfigure():
    # Salt keeps early log records and flushes them at exit, into a stream that pytest has closed by then.
    logging.raiseExceptions = False
