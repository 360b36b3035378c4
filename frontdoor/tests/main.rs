//! The front door over real sockets and real TLS, and from inside the process.

mod access;
mod audit;
mod harness;
mod in_process;
mod lately;
mod limits;
mod session;
mod streams;
