//! What programs say of themselves: modules of Go (`.go.buildinfo`) and crates of Rust (`.dep-v0`, written by
//! cargo-auditable). Only headers and these sections are read.

use std::io::Read;

use super::{Analyser, Candidate, Finding, plausible};
use crate::files::Content;
use crate::package::{Kind, Package};

const SECTIONS_MAX: u64 = 4096;
const SECTION_MAX_BYTES: u64 = 16 << 20;
const NAMES_MAX_BYTES: u64 = 1 << 20;
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";
const GO_HEADER_BYTES: usize = 32;

pub(super) const ANALYSER: Analyser = Analyser {
    os: false,
    wants: |file| file.executable && file.size_bytes >= 4096,
    read: |_: &Candidate<'_>, content: &Content| read(content),
};

fn read(content: &Content) -> Result<Vec<Finding>, String> {
    let Some(elf) = Elf::open(content) else { return Ok(Vec::new()) };
    let mut packages = Vec::new();
    if let Some(section) = elf.section(b".go.buildinfo") {
        packages.extend(go(&elf, section));
    }
    if let Some(section) = elf.section(b".dep-v0") {
        packages.extend(cargo(&elf.bytes(section).ok_or("its list of crates is cut off")?)?);
    }
    Ok(packages.into_iter().map(Finding::Package).collect())
}

struct Elf<'a> {
    content: &'a Content,
    is_64: bool,
    is_big_endian: bool,
    sections: Vec<(Vec<u8>, Section)>,
}

#[derive(Clone, Copy)]
struct Section {
    address: u64,
    offset_bytes: u64,
    size_bytes: u64,
}

impl<'a> Elf<'a> {
    /// `None` if it is no ELF file, or one without readable sections.
    fn open(content: &'a Content) -> Option<Self> {
        let header = content.slice(0, 64).ok()??;
        if !header.starts_with(b"\x7fELF") {
            return None;
        }
        let (is_64, is_big_endian) = (header[4] == 2, header[5] == 2);
        let mut elf = Self { content, is_64, is_big_endian, sections: Vec::new() };
        let (table_at, rest) =
            if is_64 { (elf.number(&header[40..48]), 58) } else { (elf.number(&header[32..36]), 46) };
        let at = |n: usize| elf.number(&header[rest + 2 * n..rest + 2 * n + 2]);
        let (entry_bytes, count, names) = (at(0), at(1), at(2));
        if entry_bytes < if is_64 { 64 } else { 40 } || count > SECTIONS_MAX || entry_bytes > 256 {
            return None;
        }
        let table = content.slice(table_at, usize::try_from(entry_bytes * count).ok()?).ok()??;
        let entries: Vec<&[u8]> = table.chunks_exact(usize::try_from(entry_bytes).ok()?).collect();
        let text =
            elf.bytes_at_most(elf.header(entries.get(usize::try_from(names).ok()?)?), NAMES_MAX_BYTES)?;
        let named = entries.iter().map(|entry| {
            let start = usize::try_from(elf.number(&entry[..4])).unwrap_or(usize::MAX);
            let name = text.get(start..).unwrap_or_default();
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
            (name[..end].to_vec(), elf.header(entry))
        });
        elf.sections = named.collect();
        Some(elf)
    }

    fn number(&self, bytes: &[u8]) -> u64 {
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if self.is_big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }

    fn header(&self, entry: &[u8]) -> Section {
        let (at, width) = if self.is_64 { (16, 8) } else { (12, 4) };
        let field = |n: usize| self.number(&entry[at + n * width..at + (n + 1) * width]);
        Section { address: field(0), offset_bytes: field(1), size_bytes: field(2) }
    }

    fn section(&self, name: &[u8]) -> Option<Section> {
        self.sections.iter().find(|(found, _)| found == name).map(|(_, section)| *section)
    }

    fn bytes(&self, section: Section) -> Option<Vec<u8>> {
        self.bytes_at_most(section, SECTION_MAX_BYTES)
    }

    fn bytes_at_most(&self, section: Section, max_bytes: u64) -> Option<Vec<u8>> {
        let size = usize::try_from(section.size_bytes).ok().filter(|_| section.size_bytes <= max_bytes)?;
        self.content.slice(section.offset_bytes, size).ok()?
    }

    /// What the program has in memory at `address`.
    fn memory(&self, address: u64, size_bytes: u64) -> Option<Vec<u8>> {
        let holds = |section: &Section| {
            section.address != 0
                && address >= section.address
                && address - section.address <= section.size_bytes.saturating_sub(size_bytes)
        };
        let section = self.sections.iter().map(|(_, section)| section).find(|section| holds(section))?;
        let offset_bytes = section.offset_bytes.checked_add(address - section.address)?;
        self.bytes(Section { address, offset_bytes, size_bytes })
    }

    /// A Go string: the address of its bytes and their number.
    fn go_string(&self, address: u64, width: u64) -> Option<Vec<u8>> {
        let header = self.memory(address, 2 * width)?;
        let (data, length) = header.split_at(usize::try_from(width).ok()?);
        self.memory(self.number(data), self.number(length))
    }
}

/// Version of Go and text of modules: behind the header since Go 1.18, else where its two pointers lead.
fn go(elf: &Elf<'_>, section: Section) -> Vec<Package> {
    let Some(bytes) = elf.bytes(section) else { return Vec::new() };
    let aligned = (0..bytes.len().saturating_sub(GO_HEADER_BYTES)).step_by(16);
    let Some(at) = aligned.into_iter().find(|at| bytes[*at..].starts_with(GO_MAGIC)) else {
        return Vec::new();
    };
    let data = &bytes[at..];
    let (width, flags) = (u64::from(data[14]), data[15]);
    let strings = if flags & 2 != 0 {
        let mut rest = &data[GO_HEADER_BYTES..];
        counted(&mut rest).zip(counted(&mut rest))
    } else {
        let end = |n: usize| 16 + n * data[14] as usize;
        let pointer = |n: usize| data.get(end(n)..end(n + 1)).map(|bytes| elf.number(bytes));
        let string = |n: usize| elf.go_string(pointer(n)?, width);
        if matches!(width, 4 | 8) { string(0).zip(string(1)) } else { None }
    };
    let Some((version, modules)) = strings else { return Vec::new() };
    // 16 bytes before and behind mark the text for the debugger.
    let modules = match modules.len().checked_sub(17) {
        Some(at) if at >= 16 && modules[at] == b'\n' => &modules[16..=at],
        _ => &[],
    };
    go_modules(&String::from_utf8_lossy(&version), &String::from_utf8_lossy(modules))
}

fn counted(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut length = 0_u64;
    for n in 0..9 {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        length |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let (text, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            *rest = tail;
            return Some(text.to_vec());
        }
    }
    None
}

/// Lines of `mod`, `dep` and `=>` (what replaces the one before), with path, version and sum.
fn go_modules(version: &str, text: &str) -> Vec<Package> {
    let mut packages = Vec::new();
    // `go1.21.5 X:boringcrypto`; development versions are no release.
    let release = version.split_whitespace().next().and_then(|word| word.strip_prefix("go"));
    if let Some(release) = release.filter(|release| plausible(release)) {
        packages.push(Package::new(Kind::Golang, "stdlib", release));
    }
    for line in text.lines() {
        let mut words = line.split('\t');
        let (kind, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let version = words.next().unwrap_or_default();
        if !matches!(kind, "mod" | "dep" | "=>") {
            continue;
        }
        if kind == "=>" {
            packages.pop();
        }
        // A replacement by a directory has no version; its place is kept so that `=>` finds it.
        if plausible(path) {
            packages.push(Package::new(Kind::Golang, path, version));
        }
    }
    packages.retain(|package| plausible(&package.version) && package.version != "(devel)");
    packages
}

#[derive(serde::Deserialize)]
struct Auditable {
    packages: Vec<Crate>,
}

#[derive(serde::Deserialize)]
struct Crate {
    name: String,
    version: String,
    #[serde(default)]
    kind: Option<String>,
}

/// Compressed JSON; crates that only ran while it was built are not in the program.
fn cargo(section: &[u8]) -> Result<Vec<Package>, String> {
    let mut json = Vec::new();
    let decoder = flate2::read::ZlibDecoder::new(section);
    decoder
        .take(SECTION_MAX_BYTES)
        .read_to_end(&mut json)
        .map_err(|error| format!("its list of crates is damaged: {error}"))?;
    let list: Auditable =
        serde_json::from_slice(&json).map_err(|error| format!("its list of crates is damaged: {error}"))?;
    let built_in = list.packages.into_iter().filter(|each| each.kind.as_deref() != Some("build"));
    Ok(built_in
        .filter(|each| plausible(&each.name) && plausible(&each.version))
        .map(|each| Package::new(Kind::Cargo, each.name, each.version))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_modules_are_what_replaces_them() {
        let text = "path\tx\nmod\tgithub.com/a/b\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:x=\ndep\tc.d/e\tv1.0.0\n=>\tf.g/h\tv2.0.0\th1:y=\nbuild\t-compiler=gc\n";
        let seen: Vec<String> =
            go_modules("go1.21.5", text).iter().map(|p| format!("{}@{}", p.name, p.version)).collect();
        assert_eq!(seen, ["stdlib@1.21.5", "golang.org/x/net@v0.1.0", "f.g/h@v2.0.0"]);
    }
}
