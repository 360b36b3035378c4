//! Which libraries a program needs, found as the dynamic loader finds them (ld.so(8)).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::PackError;

/// Larger objects are no programs anyone runs.
const OBJECT_MAX_BYTES: u64 = 4 << 30;
const OBJECTS_MAX: usize = 4096;
const INCLUDE_DEPTH_MAX: usize = 8;

/// What the loader reads of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    pub machine: u16,
    pub is_64: bool,
    pub interpreter: Option<String>,
    pub needed: Vec<String>,
    pub rpath: Vec<String>,
    pub runpath: Vec<String>,
    pub soname: Option<String>,
    pub is_dynamic: bool,
}

/// Reads an object; `None` if the file is not ELF.
pub fn read(path: &Path) -> Result<Option<Object>, PackError> {
    let mut file = File::open(path).map_err(|e| PackError::io(path, e))?;
    let size = file.metadata().map_err(|e| PackError::io(path, e))?.len();
    let mut magic = [0; 4];
    if size < 64 || file.read_exact(&mut magic).is_err() || &magic != b"\x7fELF" {
        return Ok(None);
    }
    if size > OBJECT_MAX_BYTES {
        return Err(PackError::Invalid(format!("{} is too large for a program", path.display())));
    }
    let bytes = std::fs::read(path).map_err(|e| PackError::io(path, e))?;
    parse(&bytes).map(Some).map_err(|why| PackError::Invalid(format!("{}: {why}", path.display())))
}

/// Reads an object's bytes.
pub fn parse(bytes: &[u8]) -> Result<Object, String> {
    let elf = goblin::elf::Elf::parse(bytes).map_err(|error| format!("not a readable ELF file: {error}"))?;
    let split = |lists: &[&str]| -> Vec<String> {
        lists.iter().flat_map(|l| l.split(':')).filter(|p| !p.is_empty()).map(str::to_owned).collect()
    };
    Ok(Object {
        machine: elf.header.e_machine,
        is_64: elf.is_64,
        interpreter: elf.interpreter.map(str::to_owned),
        needed: elf.libraries.iter().map(|l| (*l).to_owned()).collect(),
        rpath: split(&elf.rpaths),
        runpath: split(&elf.runpaths),
        soname: elf.soname.map(str::to_owned),
        is_dynamic: elf.dynamic.is_some(),
    })
}

/// OCI's name of the machine.
pub fn architecture(object: &Object) -> Option<&'static str> {
    use goblin::elf::header as h;
    Some(match object.machine {
        h::EM_X86_64 => "amd64",
        h::EM_AARCH64 => "arm64",
        h::EM_386 => "386",
        h::EM_ARM => "arm",
        h::EM_RISCV if object.is_64 => "riscv64",
        h::EM_PPC64 => "ppc64le",
        h::EM_S390 => "s390x",
        _ => return None,
    })
}

/// The loader's search path of this machine.
#[derive(Clone, Debug)]
pub struct SearchPath {
    configured: Vec<PathBuf>,
}

impl SearchPath {
    /// `/etc/ld.so.conf` with what it includes, then the loader's own directories.
    pub fn of_this_machine() -> Self {
        let mut configured = Vec::new();
        read_configuration(Path::new("/etc/ld.so.conf"), 0, &mut configured);
        for directory in ["/lib64", "/usr/lib64", "/lib", "/usr/lib"] {
            configured.push(PathBuf::from(directory));
        }
        Self { configured }
    }
}

fn read_configuration(path: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    for line in text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()) {
        if let Some(pattern) = line.strip_prefix("include") {
            let pattern = pattern.trim();
            // Distributions include `ld.so.conf.d/*.conf`; other patterns are single files.
            let (directory, name) = pattern.rsplit_once('/').unwrap_or(("/etc", pattern));
            let directory = Path::new("/etc").join(directory);
            let mut files: Vec<PathBuf> = match name.strip_prefix('*') {
                Some(suffix) => std::fs::read_dir(&directory)
                    .map(|entries| entries.filter_map(Result::ok).map(|e| e.path()).collect())
                    .unwrap_or_else(|_| Vec::new())
                    .into_iter()
                    .filter(|file: &PathBuf| file.to_string_lossy().ends_with(suffix))
                    .collect(),
                None => vec![directory.join(name)],
            };
            files.sort();
            if depth < INCLUDE_DEPTH_MAX {
                files.iter().for_each(|file| read_configuration(file, depth + 1, found));
            }
        } else if line.starts_with('/') {
            found.push(PathBuf::from(line));
        }
    }
}

/// All objects `roots` need, by the path the loader would open: libraries and loaders, roots not included.
/// `origin_of` gives the directory a root will have in the image, for `$ORIGIN` of packed trees: libraries inside
/// the tree are found where they are on this machine.
pub fn resolve(roots: &[PathBuf], search: &SearchPath) -> Result<BTreeSet<PathBuf>, PackError> {
    let mut found = BTreeSet::new();
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    for root in roots {
        // Sonames are per process: another program may find another library under the same name.
        seen.clear();
        let mut queue = VecDeque::from([(root.clone(), Vec::<String>::new())]);
        while let Some((path, inherited)) = queue.pop_front() {
            let Some(object) = read(&path)? else { continue };
            let origin = path.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
            let expand = |list: &[String]| -> Vec<String> {
                let lib = if object.is_64 { "lib64" } else { "lib" };
                list.iter()
                    .map(|p| {
                        p.replace("${ORIGIN}", &origin)
                            .replace("$ORIGIN", &origin)
                            .replace("${LIB}", lib)
                            .replace("$LIB", lib)
                    })
                    .collect()
            };
            if let Some(interpreter) = &object.interpreter {
                let interpreter = PathBuf::from(interpreter);
                if !interpreter.exists() {
                    let loader = interpreter.display().to_string();
                    return Err(PackError::MissingLibrary { library: loader, needed_by: path });
                }
                found.insert(interpreter);
            }
            // RUNPATH silences RPATH and is not inherited; RPATH reaches what is loaded from here.
            let mut rpath = if object.runpath.is_empty() { expand(&object.rpath) } else { Vec::new() };
            rpath.extend(inherited);
            let runpath = expand(&object.runpath);
            for library in &object.needed {
                if seen.contains_key(library) {
                    continue;
                }
                let at = locate(library, &object, &[&rpath, &runpath], search)?;
                let at = at.ok_or_else(|| PackError::MissingLibrary {
                    library: library.clone(),
                    needed_by: path.clone(),
                })?;
                seen.insert(library.clone(), at.clone());
                found.insert(at.clone());
                if found.len() > OBJECTS_MAX {
                    return Err(PackError::Invalid(format!("more than {OBJECTS_MAX} libraries are needed")));
                }
                queue.push_back((at, rpath.clone()));
            }
        }
    }
    Ok(found)
}

fn locate(
    library: &str,
    object: &Object,
    lists: &[&Vec<String>],
    search: &SearchPath,
) -> Result<Option<PathBuf>, PackError> {
    if library.contains('/') {
        let path = PathBuf::from(library);
        return Ok(path.exists().then_some(path));
    }
    let named = lists.iter().flat_map(|list| list.iter()).map(PathBuf::from);
    for directory in named.chain(search.configured.iter().cloned()) {
        let candidate = directory.join(library);
        // A library for another machine is passed over, as the loader does.
        if candidate.is_file()
            && read(&candidate)?.is_some_and(|o| o.machine == object.machine && o.is_64 == object.is_64)
        {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}
