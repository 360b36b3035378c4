//! The CNI plugin alone, for hosts and tests that do not have the whole binary.

fn main() -> std::process::ExitCode {
    gantry_netstack::cni_main()
}
