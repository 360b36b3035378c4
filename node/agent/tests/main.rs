//! The agent against a real containerd: own root, state and socket in a temporary directory, pods on the host's
//! network, images made from the sandbox program and the host's shell.

mod pods;
mod rig;
mod streaming;
