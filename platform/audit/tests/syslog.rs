//! Records arrive at a real rsyslog, over TLS.
