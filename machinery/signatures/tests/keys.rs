//! Signatures with keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_oci::Digest;
use gantry_signatures::attachment::{Subject, entries, tag, with_signature};
use gantry_signatures::payload::Payload;
use gantry_signatures::{KeyError, PrivateKey, PublicKey, Signature, Signer, Trust, Unverified, verify};
use jiff::Timestamp;

fn signed(key: &PrivateKey, digest: &Digest) -> Signature {
    let payload =
        Payload { reference: "registry.example/demo/x".to_owned(), digest: digest.clone() }.to_bytes(0);
    let signature = STANDARD.encode(key.sign(&payload).expect("a signature"));
    Signature { payload: payload.into(), signature, certificate: None, chain: None }
}

#[test]
fn what_is_not_the_trusted_keys_signature_of_this_image_does_not_count() {
    let (key, other) = (PrivateKey::generate().expect("a key"), PrivateKey::generate().expect("a key"));
    let (image, another) = (Digest::of(b"image"), Digest::of(b"another"));
    let trust = |key: &PrivateKey| Trust { keys: vec![key.public()], authorities: Vec::new() };
    let good = signed(&key, &image);
    let verified = verify(&good, &image, &trust(&key), Timestamp::now()).expect("it counts");
    assert_eq!(verified.by, Signer::Key(key.public().fingerprint()));
    assert_eq!(verified.reference, "registry.example/demo/x");

    // What was signed says the other image's name, but nobody signed that.
    let forged =
        String::from_utf8(good.payload.to_vec()).expect("text").replace(&image.hex(), &another.hex());
    let with_payload = |payload: Vec<u8>| Signature { payload: payload.into(), ..good.clone() };
    let not_a_payload = |payload: &[u8]| {
        let signature = STANDARD.encode(key.sign(payload).expect("a signature"));
        Signature { payload: payload.to_vec().into(), signature, ..good.clone() }
    };
    let kind =
        String::from_utf8(good.payload.to_vec()).expect("text").replace("cosign container", "any other");
    for (signature, digest, keys, want) in [
        (&good, &another, &key, Unverified::OtherImage(image.clone())),
        (&good, &image, &other, Unverified::Key),
        (&with_payload(forged.into_bytes()), &another, &key, Unverified::Key),
        (&with_payload(good.payload[..good.payload.len() - 1].to_vec()), &image, &key, Unverified::Key),
        (&Signature { signature: "?".to_owned(), ..good.clone() }, &image, &key, Unverified::Encoding),
        (&Signature { signature: String::new(), ..good.clone() }, &image, &key, Unverified::Key),
    ] {
        assert_eq!(verify(signature, digest, &trust(keys), Timestamp::now()), Err(want));
    }
    for payload in [&b"{}"[..], b"", kind.as_bytes(), b"[1]"] {
        let refused = verify(&not_a_payload(payload), &image, &trust(&key), Timestamp::now());
        assert!(matches!(refused, Err(Unverified::Payload(_))), "{refused:?}");
    }
    assert_eq!(verify(&good, &image, &Trust::default(), Timestamp::now()), Err(Unverified::Key));
}

#[test]
fn a_private_key_is_opened_by_its_password_alone() {
    let key = PrivateKey::generate().expect("a key");
    let pem = key.to_pem(b"secret words").expect("PEM");
    assert!(pem.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"), "{}", *pem);
    assert!(PrivateKey::is_sealed(&pem));
    let again = PrivateKey::from_pem(&pem, Some(b"secret words")).expect("the same key");
    assert_eq!(again.public(), key.public());
    assert_eq!(PublicKey::from_pem(&key.public().to_pem()).expect("a key"), key.public());
    // cosign 1 and containers/image call it otherwise.
    let older = pem.replace("SIGSTORE", "COSIGN");
    assert!(PrivateKey::from_pem(&older, Some(b"secret words")).is_ok());
    assert!(matches!(PrivateKey::from_pem(&pem, Some(b"secret word")), Err(KeyError::Password)));
    assert!(matches!(PrivateKey::from_pem(&pem, None), Err(KeyError::PasswordMissing)));
    assert!(matches!(PrivateKey::from_pem("", None), Err(KeyError::Absent(_))));
}

/// A file may not make us take a gigabyte or an hour.
#[test]
fn scrypt_has_bounds() {
    for (n, r, p) in
        [(1_u64 << 30, 8, 1), (32768, 1 << 20, 1), (32768, 8, 1000), (3, 8, 1), (0, 8, 1), (1 << 63, 8, 1)]
    {
        let sealed = serde_json::json!({
            "kdf": { "name": "scrypt", "params": { "N": n, "r": r, "p": p }, "salt": "AAAA" },
            "cipher": { "name": "nacl/secretbox", "nonce": STANDARD.encode([0; 24]) }, "ciphertext": "AAAA",
        });
        let pem = format!(
            "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n{}\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n",
            STANDARD.encode(sealed.to_string())
        );
        let refused = PrivateKey::from_pem(&pem, Some(b"x"));
        assert!(matches!(refused, Err(KeyError::Format(_))), "{n} {r} {p}: {refused:?}");
    }
}

#[test]
fn keys_of_openssl_are_read() {
    let openssl = |arguments: &[&str], input: &[u8]| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("in");
        gantry_base::fs::write_atomic(&file, input, 0o600).expect("a file");
        let mut command = std::process::Command::new("openssl");
        let out = command.args(arguments).args(if input.is_empty() {
            vec![]
        } else {
            vec!["-in".into(), file.into_os_string()]
        });
        let out = out.output().expect("openssl runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("PEM")
    };
    for kind in [
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["-algorithm", "ED25519"],
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    ] {
        let private = openssl(&[&["genpkey"], kind].concat(), b"");
        let public = PublicKey::from_pem(&openssl(&["pkey", "-pubout"], private.as_bytes()));
        let public = public.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert!(!public.verifies(b"message", b"no signature"));
        if let Ok(key) = PrivateKey::from_pem(&private, None) {
            assert_eq!(key.public(), public);
            assert!(public.verifies(b"message", &key.sign(b"message").expect("a signature")));
        } else {
            assert!(!kind.contains(&"ec_paramgen_curve:P-256"), "this one signs");
        }
    }
    let secp256k1 = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"], b"");
    let public = PublicKey::from_pem(&openssl(&["pkey", "-pubout"], secp256k1.as_bytes()));
    assert!(matches!(public, Err(KeyError::Kind)), "{public:?}");
}

#[test]
fn signatures_are_added_to_those_that_are_there() {
    let (first, second) = (PrivateKey::generate().expect("a key"), PrivateKey::generate().expect("a key"));
    let image = Digest::of(b"image");
    let subject = Subject { digest: image.clone(), media_type: "m".to_owned(), size_bytes: 5 };
    let one = with_signature(None, &subject, &signed(&first, &image)).expect("JSON");
    let both = with_signature(Some(&one.manifest), &subject, &signed(&second, &image)).expect("JSON");
    let found = entries(&both.manifest).expect("a manifest");
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], entries(&one.manifest).expect("a manifest")[0], "who signed first stays");
    assert_eq!(found[1].payload, both.blobs[1].digest);
    assert_eq!(tag(&image).expect("a tag").as_str(), format!("sha256-{}.sig", image.hex()));
    assert!(entries(b"{").is_err());
    assert_eq!(entries(br#"{"layers":[]}"#), Ok(Vec::new()));
}

/// Sealed by libsodium with the scrypt of openssl, in the older parameters and under the older name of cosign.
#[test]
fn keys_that_others_sealed_are_opened() {
    let sealed = include_str!("data/sealed.key");
    let key = PrivateKey::from_pem(sealed, Some(b"test vector")).expect("the key");
    assert_eq!(key.public().to_pem(), include_str!("data/sealed.pub"));
    let wrong = PrivateKey::from_pem(sealed, Some(b""));
    assert!(matches!(wrong, Err(KeyError::Password)), "{wrong:?}");
}
