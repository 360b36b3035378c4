//! Images for tests: the demo, and a box of tools with a shell, for packed images have none.

use std::os::unix::fs::symlink;

use crate::command::Output;
use crate::instance::{Instance, binary};

/// The commands in the box.
const TOOLS: &[&str] = &[
    "sh",
    "cat",
    "echo",
    "ls",
    "sleep",
    "tar",
    "env",
    "id",
    "wget",
    "nslookup",
    "hostname",
    "seq",
    "dd",
    "head",
    "touch",
    "mkdir",
    "rm",
    "stty",
    "httpd",
    "true",
    "false",
    "wc",
    "sha256sum",
    "test",
    "grep",
];

/// Where Debian's busybox-static puts it.
const BUSYBOX: &[&str] = &["/bin/busybox", "/usr/bin/busybox"];

impl Instance {
    /// Packs and pushes the demo program as `tag`, with `gantry image pack` and further arguments.
    #[track_caller]
    pub fn push_hello(&self, tag: &str, arguments: &[&str]) -> Output {
        let hello = binary("hello").display().to_string();
        let base = ["image", "pack", &hello, "--tag", tag, "--port", "8080"];
        self.gantry(&[&base[..], arguments].concat())
    }

    /// Packs and pushes `demo/tools:1`: a static busybox under the names of its commands, run as root.
    ///
    /// # Panics
    /// When busybox is not installed.
    #[track_caller]
    pub fn push_tools(&self) -> &'static str {
        let folder = self.scratch().join("tools");
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).expect("a folder in the test's own directory");
        std::fs::create_dir_all(folder.join("tmp")).expect("a folder in the test's own directory");
        let busybox = BUSYBOX.iter().find(|path| std::path::Path::new(path).is_file());
        let busybox = busybox.expect("busybox is installed by `cargo xtask setup`");
        if !bin.join("busybox").exists() {
            std::fs::copy(busybox, bin.join("busybox")).expect("a copy of busybox");
            for tool in TOOLS {
                symlink("busybox", bin.join(tool)).expect("a link in a new folder");
            }
        }
        let folder = folder.display().to_string();
        let out = self.gantry(&[
            "image",
            "pack",
            &folder,
            "--tag",
            "demo/tools:1",
            "--destination",
            "/",
            "--user",
            "0:0",
            "--entrypoint",
            "/bin/sh",
            "--env",
            "PATH=/bin",
            "--workdir",
            "/",
        ]);
        out.ok();
        "demo/tools:1"
    }
}
