//! A program as an image: it, what it needs to run, and nothing else.

pub mod elf;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use oci_spec::image::{Arch, ConfigBuilder, ImageConfigurationBuilder, Os, RootFsBuilder};

use crate::image::Image;
use crate::layer::{Entry, Tree};

/// `USER` of packed images unless asked otherwise.
pub const NONROOT: &str = "65532:65532";
const FILES_MAX: usize = 1_000_000;
const LINKS_MAX: usize = 40;
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why something cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Invalid(String),
    #[error("{library} is needed by {needed_by} and not found on this machine")]
    MissingLibrary { library: String, needed_by: PathBuf },
}

impl PackError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// What the image says of itself.
#[derive(Clone, Debug, Default)]
pub struct PackOptions {
    /// `USER[:GROUP]`; absent: [`NONROOT`].
    pub user: Option<String>,
    /// Absent: the program. A directory has none unless given.
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Vec<String>,
    /// `PORT[/tcp|/udp]`.
    pub ports: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub workdir: Option<String>,
    /// Where the program or the directory goes; absent: `/usr/local/bin/NAME`, or `/app` for a directory.
    pub destination: Option<String>,
    /// Further files and programs of this machine, packed at the same path with what they need.
    pub with: Vec<PathBuf>,
}

/// Packs the executable or directory at `path`.
pub fn pack(path: &Path, options: &PackOptions) -> Result<Image, PackError> {
    let path = std::path::absolute(path).map_err(|e| PackError::io(path, e))?;
    let meta = std::fs::metadata(&path).map_err(|e| PackError::io(&path, e))?;
    let mut packer = Packer::default();
    let (mut program, mut workdir) = (None, options.workdir.clone());
    if meta.is_dir() {
        let destination = options.destination.clone().unwrap_or_else(|| "/app".to_owned());
        packer.add_directory(&path, &destination)?;
        packer.moved = Some((path.clone(), destination.clone()));
        workdir = workdir.or(Some(destination));
    } else {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let destination = options.destination.clone().unwrap_or_else(|| format!("/usr/local/bin/{name}"));
        packer.add_program(&path, &destination, &options.with)?;
        program = Some(vec![destination]);
    }
    for with in &options.with {
        let with = std::path::absolute(with).map_err(|e| PackError::io(with, e))?;
        packer.add_from_machine(&with)?;
    }
    packer.add_dependencies()?;
    let entrypoint = options.entrypoint.clone().or(program);
    finish(
        &packer.tree,
        packer.architecture.unwrap_or_else(machine),
        &PackOptions { entrypoint, workdir, ..options.clone() },
    )
}

/// Packs one static program given as bytes at the absolute `path`, for `architecture` (OCI's word).
pub fn pack_static(
    program: Bytes,
    path: &str,
    architecture: &str,
    options: &PackOptions,
) -> Result<Image, PackError> {
    let mut tree = Tree::default();
    tree.add(path, Entry::Bytes { content: program, mode: 0o755 });
    let entrypoint = options.entrypoint.clone().or_else(|| Some(vec![path.to_owned()]));
    finish(&tree, architecture, &PackOptions { entrypoint, ..options.clone() })
}

fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Default)]
struct Packer {
    tree: Tree,
    /// Objects whose libraries are to be found.
    objects: Vec<PathBuf>,
    architecture: Option<&'static str>,
    /// Some object is loaded by glibc's loader, which also opens files by name (names, certificates).
    is_dynamic: bool,
    files: usize,
    /// Where what lies below the first directory goes: `$ORIGIN` moves with the program.
    moved: Option<(PathBuf, String)>,
}

impl Packer {
    fn add_program(&mut self, path: &Path, destination: &str, with: &[PathBuf]) -> Result<(), PackError> {
        if elf::read(path)?.is_none() {
            let interpreter = interpreter(path)?.ok_or_else(|| {
                PackError::Invalid(format!("{} is no program: neither ELF nor a script", path.display()))
            })?;
            if !with.iter().any(|w| w == Path::new(&interpreter)) {
                return Err(PackError::Invalid(format!(
                    "{} is a script for {interpreter}: add --with {interpreter} to pack that too",
                    path.display()
                )));
            }
        }
        let resolved = path.canonicalize().map_err(|e| PackError::io(path, e))?;
        if let (Some(from), Some((to, _))) = (resolved.parent(), destination.rsplit_once('/')) {
            self.moved = Some((from.to_owned(), to.to_owned()));
        }
        self.add_file(&resolved, destination, Some(0o755))
    }

    fn add_file(&mut self, source: &Path, destination: &str, mode: Option<u32>) -> Result<(), PackError> {
        check_destination(destination)?;
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(PackError::Invalid(format!("more than {FILES_MAX} files")));
        }
        if let Some(object) = elf::read(source)? {
            self.note(source, &object)?;
        }
        let meta = std::fs::metadata(source).map_err(|e| PackError::io(source, e))?;
        if !meta.is_file() {
            return Err(PackError::Invalid(format!("{} is no regular file", source.display())));
        }
        let executable = meta.permissions().mode() & 0o111 != 0;
        // The umask of who built it must not change the digest, nor lock the container's user out.
        let mode = mode.unwrap_or(if executable { 0o755 } else { 0o644 });
        self.tree.add(destination, Entry::File { source: source.to_owned(), mode });
        Ok(())
    }

    fn note(&mut self, source: &Path, object: &elf::Object) -> Result<(), PackError> {
        let architecture = elf::architecture(object);
        if let (Some(one), Some(other)) = (self.architecture, architecture)
            && one != other
            && object.interpreter.is_some()
        {
            return Err(PackError::Invalid(format!(
                "{} is for {other}, the rest for {one}: an image has one architecture",
                source.display()
            )));
        }
        self.architecture = self.architecture.or(architecture);
        self.is_dynamic |= object.interpreter.is_some();
        if object.is_dynamic {
            self.objects.push(source.to_owned());
        }
        Ok(())
    }

    fn add_directory(&mut self, root: &Path, destination: &str) -> Result<(), PackError> {
        for entry in walkdir::WalkDir::new(root).sort_by_file_name().min_depth(1) {
            let entry = entry.map_err(|e| PackError::Invalid(e.to_string()))?;
            let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
            let relative = relative.to_str().ok_or_else(|| {
                PackError::Invalid(format!("{} is not a UTF-8 name", entry.path().display()))
            })?;
            let target = format!("{}/{relative}", destination.trim_end_matches('/'));
            let kind = entry.file_type();
            if kind.is_dir() {
                self.tree.add(&target, Entry::Directory { mode: 0o755 });
            } else if kind.is_symlink() {
                let link = std::fs::read_link(entry.path()).map_err(|e| PackError::io(entry.path(), e))?;
                self.tree.add(&target, Entry::Symlink { target: link.to_string_lossy().into_owned() });
            } else {
                self.add_file(entry.path(), &target, None)?;
            }
        }
        Ok(())
    }

    /// A file of this machine at its own path; the links on the way to it stay links.
    fn add_from_machine(&mut self, path: &Path) -> Result<(), PackError> {
        let resolved = self.add_links(path)?;
        if resolved.is_dir() {
            let destination = resolved.to_string_lossy().into_owned();
            return self.add_directory(&resolved, &destination);
        }
        let destination = resolved.to_string_lossy().into_owned();
        self.add_file(&resolved, &destination, None)
    }

    /// Walks `path` part by part, puts every symbolic link met into the tree, and returns where it ends.
    fn add_links(&mut self, path: &Path) -> Result<PathBuf, PackError> {
        let mut pending: Vec<PathBuf> = parts(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == Path::new("..") {
                at.pop();
                continue;
            }
            let next = at.join(part);
            let meta = std::fs::symlink_metadata(&next).map_err(|e| PackError::io(&next, e))?;
            if !meta.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(PackError::Invalid(format!("{}: too many links", path.display())));
            }
            let target = std::fs::read_link(&next).map_err(|e| PackError::io(&next, e))?;
            let name = next.to_string_lossy().into_owned();
            self.tree.add(&name, Entry::Symlink { target: target.to_string_lossy().into_owned() });
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            pending.extend(parts(&target));
        }
        Ok(at)
    }

    fn add_dependencies(&mut self) -> Result<(), PackError> {
        let search = elf::SearchPath::of_this_machine();
        let mut roots = std::mem::take(&mut self.objects);
        if self.is_dynamic {
            self.add_names(&mut roots)?;
        }
        for library in elf::resolve(&roots, &search)? {
            match self.moved_place(&library) {
                Some(place) if self.tree.get(&place).is_some() => {}
                Some(place) => {
                    let file = library.canonicalize().map_err(|e| PackError::io(&library, e))?;
                    self.add_file(&file, &place, None)?;
                }
                None => self.add_from_machine(&library)?,
            }
        }
        Ok(())
    }

    /// Where a library goes that was found from the place of the program, e.g. by `$ORIGIN/../lib`.
    fn moved_place(&self, library: &Path) -> Option<String> {
        let (from, to) = self.moved.as_ref()?;
        let relative = library.strip_prefix(from).ok()?;
        let mut place = PathBuf::from(if to.is_empty() { "/" } else { to });
        for part in relative.components() {
            if part == Component::ParentDir {
                place.pop();
            } else {
                place.push(part);
            }
        }
        place.to_str().map(str::to_owned)
    }

    /// What glibc opens by name while a program runs: name services, certificates, time zones.
    fn add_names(&mut self, roots: &mut Vec<PathBuf>) -> Result<(), PackError> {
        let text = |content: &'static str| Entry::Bytes {
            content: Bytes::from_static(content.as_bytes()),
            mode: 0o644,
        };
        self.tree.add(
            "/etc/nsswitch.conf",
            text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
        );
        self.tree.add(
            "/etc/passwd",
            text("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"),
        );
        self.tree.add("/etc/group", text("root:x:0:\nnonroot:x:65532:\n"));
        self.tree.add("/tmp", Entry::Directory { mode: 0o1777 });
        if Path::new(CERTIFICATES).exists() {
            self.add_from_machine(Path::new(CERTIFICATES))?;
        }
        if Path::new("/usr/share/zoneinfo/UTC").exists() {
            self.add_from_machine(Path::new("/usr/share/zoneinfo/UTC"))?;
        }
        // Part of libc itself since glibc 2.34, separate files before.
        let search = elf::SearchPath::of_this_machine();
        let libraries = elf::resolve(roots, &search)?;
        let libc = libraries.iter().find(|l| l.file_name().is_some_and(|n| n == "libc.so.6"));
        if let Some(directory) = libc.and_then(|l| l.parent()) {
            for name in ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"] {
                let path = directory.join(name);
                if path.exists() {
                    self.add_from_machine(&path)?;
                    roots.push(path);
                }
            }
        }
        Ok(())
    }
}

fn parts(path: &Path) -> Vec<PathBuf> {
    let part = |c: Component<'_>| match c {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(part).collect()
}

fn check_destination(path: &str) -> Result<(), PackError> {
    let good = path.starts_with('/') && Path::new(path).components().all(|c| c != Component::ParentDir);
    if good { Ok(()) } else { Err(PackError::Invalid(format!("{path:?} is no absolute path"))) }
}

/// The first word after `#!`.
fn interpreter(path: &Path) -> Result<Option<String>, PackError> {
    use std::io::Read;
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| PackError::io(path, e))?;
    file.take(256).read_to_end(&mut head).map_err(|e| PackError::io(path, e))?;
    let text = String::from_utf8_lossy(&head);
    let line = text.strip_prefix("#!").and_then(|rest| rest.lines().next());
    Ok(line.and_then(|l| l.split_whitespace().next()).map(str::to_owned))
}

fn finish(tree: &Tree, architecture: &str, options: &PackOptions) -> Result<Image, PackError> {
    let invalid = |error: &dyn std::fmt::Display| PackError::Invalid(error.to_string());
    let (layer, diff_id) = tree.to_layer().map_err(|e| invalid(&e))?;
    let mut config = ConfigBuilder::default()
        .user(options.user.clone().unwrap_or_else(|| NONROOT.to_owned()))
        .env(environment(&options.env)?);
    if let Some(entrypoint) = &options.entrypoint {
        config = config.entrypoint(entrypoint.clone());
    }
    if !options.cmd.is_empty() {
        config = config.cmd(options.cmd.clone());
    }
    if let Some(workdir) = &options.workdir {
        check_destination(workdir)?;
        config = config.working_dir(workdir.clone());
    }
    if !options.ports.is_empty() {
        config = config.exposed_ports(options.ports.iter().map(|p| port(p)).collect::<Result<Vec<_>, _>>()?);
    }
    if !options.labels.is_empty() {
        let labels = options.labels.iter().map(|(k, v)| (k.clone(), v.clone()));
        config = config.labels(labels.collect::<std::collections::HashMap<_, _>>());
    }
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(vec![diff_id.to_string()]).build();
    let configuration = ImageConfigurationBuilder::default()
        .architecture(Arch::from(architecture))
        .os(Os::Linux)
        .config(config.build().map_err(|e| invalid(&e))?)
        .rootfs(rootfs.map_err(|e| invalid(&e))?)
        .build()
        .map_err(|e| invalid(&e))?;
    Image::assemble(&configuration, vec![layer]).map_err(|e| invalid(&e))
}

fn environment(env: &[String]) -> Result<Vec<String>, PackError> {
    let mut all = env.to_vec();
    for pair in env {
        if pair.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            return Err(PackError::Invalid(format!("--env {pair:?} is not NAME=VALUE")));
        }
    }
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        all.insert(0, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    Ok(all)
}

fn port(text: &str) -> Result<String, PackError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let good = number.parse::<u16>().is_ok_and(|n| n > 0) && matches!(protocol, "tcp" | "udp" | "sctp");
    if good {
        Ok(format!("{number}/{protocol}"))
    } else {
        Err(PackError::Invalid(format!("--port {text:?} is not PORT or PORT/tcp|udp|sctp")))
    }
}
