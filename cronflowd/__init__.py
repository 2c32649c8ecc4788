"""cronflowd: schedule with netcat, run on workers that dial in, lose nothing."""

# The only place that holds the version: setup.cfg, HELLO and --version all read it here.
__version__ = "0.1.0"
