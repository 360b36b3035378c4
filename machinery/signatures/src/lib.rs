//! Signatures of images as `cosign` makes and finds them, with keys or certificates, without any service.
//!
//! What is signed is a small JSON text that names the image's digest ([`payload`]). It is kept beside the image as a
//! manifest whose layers are such texts and whose annotations are the signatures ([`attachment`]), under the tag
//! `sha256-HEX.sig`. [`verify`] is a pure function of these bytes, of whom one trusts, and of the time.

pub mod attachment;
mod certificate;
#[doc(hidden)]
pub mod fuzz;
mod key;
pub mod payload;
mod pem;
mod sealed;
mod verify;

pub use certificate::{Authority, CertificateError};
pub use key::{KeyError, PrivateKey, PublicKey};
pub use verify::{Signature, Signer, Trust, Unverified, Verified, verify};
