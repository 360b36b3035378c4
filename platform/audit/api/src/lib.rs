//! What others may know of the audit trail: the form of records, the form of its files, how a trail is
//! verified without the server that wrote it, and the words of the query API.
//!
//! Nothing here writes a trail; `gantry-audit` does.
//!
//! # The trail on disk
//!
//! ```text
//! FORMAT                      version of this layout
//! keys.json                   public keys of checkpoints (schema 1)
//! head.json                   the newest checkpoint, replaced whole
//! segments/NUMBER.log         frames as they were appended
//! segments/NUMBER.seal        a closed segment: the same frames in compressed blocks
//! segments/NUMBER.idx         where to look in it, signed; can be made again from the segment
//! sessions/ID.cast.zst        a recorded terminal session
//! ```
//!
//! A segment is a header and frames ([`frame`]). Every frame is chained to the one before it and every
//! header to the segment before it ([`chain`]). Of a record that is like one before, a frame has what is its own
//! ([`like`]). Checkpoints and tombstones are frames that are signed ([`signed`]), and so is what a search looks into
//! ([`index`]). [`verify`] reads it all.

pub mod cast;
pub mod chain;
pub mod frame;
pub mod index;
pub mod like;
pub mod query;
pub mod record;
pub mod segment;
pub mod sessions;
pub mod signed;
pub mod table;
pub mod verify;

/// The API group of the query API and of its virtual resource.
pub const GROUP: &str = "audit.gantry.dev";
/// The version of the query API.
pub const VERSION: &str = "v1alpha1";
/// The virtual resource that rights to read records are rules about: `get`, `list`.
pub const RESOURCE: &str = "records";
/// Below this path of the front door.
pub const PATH: &str = "/apis/audit.gantry.dev/v1alpha1";

/// The version that stands in `FORMAT`.
pub const FORMAT: &str = "2\n";
/// Earlier versions that are read, too: in the first, every record stood for itself.
pub const FORMATS_BEFORE: [&str; 1] = ["1\n"];
/// File and folder names below the trail's directory.
pub mod files {
    pub const FORMAT: &str = "FORMAT";
    pub const KEYS: &str = "keys.json";
    pub const HEAD: &str = "head.json";
    pub const SEGMENTS: &str = "segments";
    pub const SESSIONS: &str = "sessions";
}
