//! The text that is signed: "simple signing" of containers/image, as cosign writes it.

use gantry_oci::Digest;
use serde::Deserialize;
use serde_json::json;

/// What cosign and containers/image call the kind.
pub const KIND: &str = "cosign container image signature";
/// Media type of a payload as a layer.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// No payload is larger; annotations of people are all that makes one grow.
pub const BYTES_MAX: usize = 64 << 10;

/// What a payload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The name the image had when it was signed, `HOST/REPOSITORY`. A mirror has another.
    pub reference: String,
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Text {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

impl Payload {
    /// The bytes to sign. `at`: seconds since the epoch, a note for people.
    pub fn to_bytes(&self, at: i64) -> Vec<u8> {
        let text = json!({
            "critical": {
                "identity": { "docker-reference": self.reference },
                "image": { "docker-manifest-digest": self.digest },
                "type": KIND,
            },
            "optional": { "creator": "gantry", "timestamp": at },
        });
        text.to_string().into_bytes()
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!("it is larger than {BYTES_MAX} bytes"));
        }
        let text: Text = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let Critical { identity, image, r#type } = text.critical;
        if r#type != KIND {
            return Err(format!("it is a {:?}", r#type.chars().take(100).collect::<String>()));
        }
        Ok(Self { reference: identity.reference, digest: image.digest })
    }
}
