//! The program of the sandbox image.

/// A static ELF executable for the architecture this crate was built for, made by `build.rs` from `pause.rs`.
pub const PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_is_static_and_small() {
        assert_eq!(&super::PAUSE[..4], b"\x7fELF");
        assert!(super::PAUSE.len() < 64 << 10, "{} bytes", super::PAUSE.len());
        assert!(!super::PAUSE.windows(8).any(|w| w == b"ld-linux"), "no interpreter");
    }
}
