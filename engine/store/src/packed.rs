//! Objects that are many and seldom read, kept small.
//!
//! Objects of one kind look alike: the same fields, managers, roles. A few of them serve as a dictionary, and what
//! is kept of another one is what it does not share with these. Unpacking takes about a microsecond, so this is for
//! kinds whose readers keep what they need of them: see [`crate::Options::packed`].

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use triomphe::ThinArc;
use zstd::zstd_safe::{CCtx, CDict, DCtx, DDict};

use crate::tree::Keyed;
use crate::{Event, EventKind, Key, Object, Prefix, Revision};

/// A dictionary is made of so many objects, when a kind has so many.
const SAMPLES: usize = 16;
const SAMPLE_EVERY: usize = 4;
pub(crate) const WORTH_IT: usize = SAMPLES * SAMPLE_EVERY;
/// Of one object.
const SAMPLE_BYTES_MAX: usize = 4 << 10;
const LEVEL: i32 = 3;

/// Which kinds are packed.
#[derive(Clone, Debug, Default)]
pub struct Packed(Arc<HashSet<String>>);

impl Packed {
    /// `kinds`: group and resource.
    pub fn new(kinds: &[(&str, &str)]) -> Self {
        Self(Arc::new(
            kinds.iter().map(|(group, resource)| Prefix::resource(group, resource).kind()).collect(),
        ))
    }

    pub(crate) fn has(&self, kind: &str) -> bool {
        self.0.contains(kind)
    }
}

/// What the objects of a kind have in common.
pub(crate) struct Dictionary {
    pack: CDict<'static>,
    unpack: DDict<'static>,
    context: Mutex<CCtx<'static>>,
}

impl Dictionary {
    /// Made from some of the kind's objects.
    pub(crate) fn of<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Self {
        let samples = objects.step_by(SAMPLE_EVERY).take(SAMPLES);
        let mut text = Vec::new();
        for object in samples {
            text.extend_from_slice(&object.value[..object.value.len().min(SAMPLE_BYTES_MAX)]);
        }
        Self {
            pack: CDict::create(&text, LEVEL),
            unpack: DDict::create(&text),
            context: Mutex::new(CCtx::create()),
        }
    }

    fn pack(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(value.len()));
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        context.compress_using_cdict(&mut out, value, &self.pack).ok()?;
        Some(out)
    }
}

thread_local! {
    /// 160 KiB, for threads that read something packed.
    static UNPACKING: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// One object in a snapshot.
#[derive(Clone)]
pub(crate) enum Kept {
    /// With where the part of its key begins that is behind the kind.
    Whole(Arc<Object>, u32),
    /// The key behind the kind, and the value as the kind's dictionary packs it, in one piece.
    Packed(ThinArc<Head, u8>),
}

#[derive(Clone, Copy)]
pub(crate) struct Head {
    revision: Revision,
    value_bytes: u32,
    key_bytes: u32,
}

impl Keyed for Kept {
    /// Behind the kind.
    fn key(&self) -> &[u8] {
        match self {
            Self::Whole(object, at) => &object.key.as_str().as_bytes()[*at as usize..],
            Self::Packed(it) => &it.slice[..it.header.header.key_bytes as usize],
        }
    }
}

impl Kept {
    pub(crate) fn new(object: Arc<Object>, dictionary: Option<&Dictionary>) -> Self {
        // Keys and values are bounded far below 4 GiB.
        let at = object.key.kind().len() as u32 + 1;
        let Some((dictionary, packed)) = dictionary.and_then(|d| Some((d, d.pack(&object.value)?))) else {
            return Self::Whole(object, at);
        };
        if packed.len() >= object.value.len() / 2 {
            return Self::Whole(object, at);
        }
        let key = object.key.within_kind().as_bytes();
        let head = Head {
            revision: object.revision,
            value_bytes: object.value.len() as u32,
            key_bytes: key.len() as u32,
        };
        let kept = Self::Packed(ThinArc::from_header_and_slice(head, &[key, &packed].concat()));
        // What we packed is what we unpack, or it is kept as it is.
        let back = kept.object(object.key.kind(), Some(dictionary));
        if *back == *object { kept } else { Self::Whole(object, at) }
    }

    pub(crate) fn revision(&self) -> Revision {
        match self {
            Self::Whole(object, _) => object.revision,
            Self::Packed(it) => it.header.header.revision,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Whole(object, _) => object.value.len(),
            Self::Packed(it) => it.header.header.value_bytes as usize,
        }
    }

    /// In whatever namespace.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        let namespace = self.key().strip_suffix(name.as_bytes());
        namespace.is_some_and(|namespace| namespace.last() == Some(&0))
    }

    /// The object, of this kind and packed by this dictionary.
    pub(crate) fn object(&self, kind: &str, dictionary: Option<&Dictionary>) -> Arc<Object> {
        let it = match self {
            Self::Whole(object, _) => return object.clone(),
            Self::Packed(it) => it,
        };
        let Head { revision, value_bytes, key_bytes } = it.header.header;
        let (key, packed) = it.slice.split_at(key_bytes as usize);
        let key = Key::of(kind, &String::from_utf8_lossy(key));
        let mut value = Vec::with_capacity(value_bytes as usize);
        let unpacked = UNPACKING.with_borrow_mut(|context| match dictionary {
            Some(dictionary) => context.decompress_using_ddict(&mut value, packed, &dictionary.unpack),
            None => context.decompress(&mut value, packed),
        });
        // Looked at when it was packed; memory that changed since is no case to go on in.
        if let Err(code) = unpacked {
            tracing::error!(%key, error = zstd::zstd_safe::get_error_name(code), "an object in memory is damaged");
        }
        Arc::new(Object { key, revision, value: Bytes::from(value) })
    }
}

/// An event that is remembered for who is late. Its object is the snapshot's own, as long as that has it.
#[derive(Clone)]
pub(crate) struct PackedEvent {
    pub(crate) revision: Revision,
    kind: EventKind,
    /// Group and resource.
    name: Arc<str>,
    dictionary: Arc<Dictionary>,
    object: Kept,
    previous: Option<Kept>,
}

impl PackedEvent {
    /// `kept` is the event's object, if somebody has it already.
    pub(crate) fn new(
        event: &Event,
        name: Arc<str>,
        kept: Option<Kept>,
        dictionary: Arc<Dictionary>,
    ) -> Self {
        let pack = |object: &Arc<Object>| Kept::new(object.clone(), Some(&dictionary));
        let object = kept.unwrap_or_else(|| pack(&event.object));
        let previous = event.previous.as_ref().map(pack);
        Self { revision: event.revision, kind: event.kind, name, object, previous, dictionary }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn values_bytes(&self) -> usize {
        self.object.value_bytes() + self.previous.as_ref().map_or(0, Kept::value_bytes)
    }

    /// Whether a prefix of its own kind selects it.
    pub(crate) fn is_selected(&self, prefix: &Prefix) -> bool {
        let named = prefix.name.as_deref().is_none_or(|name| self.object.is_named(name));
        named && self.object.key().starts_with(prefix.within_kind().as_bytes())
    }

    pub(crate) fn unpack(&self) -> Arc<Event> {
        let object = |kept: &Kept| kept.object(&self.name, Some(&self.dictionary));
        let previous = self.previous.as_ref().map(object);
        Arc::new(Event { revision: self.revision, kind: self.kind, object: object(&self.object), previous })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(number: usize, text: &str) -> Arc<Object> {
        let value = format!(
            r#"{{"apiVersion":"identity.gantry.dev/v1alpha1","kind":"RoleAssignment","metadata":{{"name":"a{number}","managedFields":[{{"manager":"gantry","operation":"Update","fieldsType":"FieldsV1","fieldsV1":{{"f:spec":{{"f:role":{{}},"f:user":{{}}}}}}}}]}},"spec":{{"role":"member","user":"{text}"}}}}"#
        );
        let key = Key::new("identity.gantry.dev", "roleassignments", "", &format!("a{number}"));
        Arc::new(Object { key, revision: number as u64, value: value.into() })
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(texts in proptest::collection::vec(".{0,200}", 1..100)) {
            let objects: Vec<_> = texts.iter().enumerate().map(|(n, text)| object(n, text)).collect();
            let dictionary = Dictionary::of(objects.iter());
            for object in &objects {
                let kept = Kept::new(object.clone(), Some(&dictionary));
                prop_assert_eq!(kept.key(), object.key.within_kind().as_bytes());
                prop_assert_eq!(&kept.object(object.key.kind(), Some(&dictionary)), object);
            }
        }
    }

    #[test]
    fn likes_become_small_and_others_stay_as_they_are() {
        let samples: Vec<_> = (0..WORTH_IT).map(|n| object(n, &format!("user-{n}"))).collect();
        let dictionary = Dictionary::of(samples.iter());
        let like = object(1000, "somebody-else");
        match Kept::new(like.clone(), Some(&dictionary)) {
            Kept::Packed(it) => assert!(it.slice.len() * 4 < like.value.len(), "{}", it.slice.len()),
            Kept::Whole(..) => panic!("it is like the others"),
        }
        let noise: Vec<u8> = (0..200_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let other = Arc::new(Object { value: noise.into(), ..(*like).clone() });
        assert!(matches!(Kept::new(other, Some(&dictionary)), Kept::Whole(..)));
    }
}
