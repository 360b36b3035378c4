//! Signatures with certificates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_oci::Digest;
use gantry_signatures::payload::Payload;
use gantry_signatures::{
    Authority, CertificateError, PrivateKey, Signature, Signer, Trust, Unverified, verify,
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

struct Made {
    pem: String,
    key: KeyPair,
    params: CertificateParams,
}

fn params(name: &str, ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    } else {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.subject_alt_names =
            vec![SanType::Rfc822Name(format!("{name}@example.org").try_into().expect("a name"))];
    }
    let day = time::Duration::DAY;
    params.not_before = time::OffsetDateTime::now_utc() - day;
    params.not_after = time::OffsetDateTime::now_utc() + day;
    params
}

fn root(name: &str) -> Made {
    let (params, key) = (params(name, true), KeyPair::generate().expect("a key"));
    let pem = params.self_signed(&key).expect("a certificate").pem();
    Made { pem, key, params }
}

fn issued(by: &Made, params: CertificateParams) -> Made {
    let key = KeyPair::generate().expect("a key");
    let issuer = Issuer::from_params(&by.params, &by.key);
    let pem = params.signed_by(&key, &issuer).expect("a certificate").pem();
    Made { pem, key, params }
}

fn signed(by: &Made, chain: Option<&Made>, digest: &Digest) -> Signature {
    let key = PrivateKey::from_pem(&by.key.serialize_pem(), None).expect("a key");
    let payload = Payload { reference: "r/x".to_owned(), digest: digest.clone() }.to_bytes(0);
    Signature {
        signature: STANDARD.encode(key.sign(&payload).expect("a signature")),
        payload: payload.into(),
        certificate: Some(by.pem.clone()),
        chain: chain.map(|c| c.pem.clone()),
    }
}

fn trust(pem: &str, identities: &[&str]) -> Trust {
    let mut authority = Authority::from_pem(pem).expect("certificates");
    authority.identities = identities.iter().map(|i| (*i).to_owned()).collect();
    Trust { keys: Vec::new(), authorities: vec![authority] }
}

#[test]
fn a_certificate_counts_that_leads_to_the_root() {
    let (root, stranger, image) = (root("root"), root("stranger"), Digest::of(b"image"));
    let middle = issued(&root, params("middle", true));
    let leaf = issued(&middle, params("alice", false));
    let good = signed(&leaf, Some(&middle), &image);
    let now = Timestamp::now();
    let verified = verify(&good, &image, &trust(&root.pem, &[]), now).expect("it counts");
    let Signer::Certificate { identities, .. } = &verified.by else { panic!("{verified:?}") };
    assert_eq!(identities, &["alice@example.org"]);
    // The chain may come with the trust, too.
    let alone = Signature { chain: None, ..good.clone() };
    let both = format!("{}{}", middle.pem, root.pem);
    assert!(verify(&alone, &image, &trust(&both, &["*@example.org"]), now).is_ok());

    let refused = |signature: &Signature, trust: &Trust, at: Timestamp| {
        verify(signature, &image, trust, at).expect_err("it does not count")
    };
    let chain = |refused: &Unverified| matches!(refused, Unverified::Certificate(CertificateError::Chain(_)));
    let expired =
        |refused: &Unverified| matches!(refused, Unverified::Certificate(CertificateError::Expired { .. }));
    assert!(chain(&refused(&alone, &trust(&root.pem, &[]), now)), "the intermediate is missing");
    assert!(chain(&refused(&good, &trust(&stranger.pem, &[]), now)), "another root");
    for days in [-3, 3] {
        assert!(expired(&refused(
            &good,
            &trust(&root.pem, &[]),
            now + SignedDuration::from_hours(24 * days)
        )));
    }
    let identity = refused(&good, &trust(&root.pem, &["bob@*"]), now);
    assert_eq!(identity, Unverified::Certificate(CertificateError::Identity("alice@example.org".to_owned())));
    // A good certificate beside a signature of another key.
    let other = issued(&middle, params("bob", false));
    let mixed = Signature { certificate: Some(other.pem.clone()), ..good.clone() };
    assert_eq!(refused(&mixed, &trust(&root.pem, &[]), now), Unverified::CertificateKey);
    // A key that is trusted needs no certificate, and a certificate is none where only keys are.
    assert_eq!(refused(&good, &Trust::default(), now), Unverified::Key);
}

#[test]
fn certificates_for_something_else_do_not_count() {
    let (root, image) = (root("root"), Digest::of(b"image"));
    let now = Timestamp::now();
    let mut server = params("server", false);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = issued(&root, server);
    let refused = verify(&signed(&server, None, &image), &image, &trust(&root.pem, &[]), now);
    assert_eq!(refused, Err(Unverified::Certificate(CertificateError::Usage)));
    // One that may not issue does.
    let leaf = issued(&root, params("alice", false));
    let below = issued(&leaf, params("mallory", false));
    let refused = verify(&signed(&below, Some(&leaf), &image), &image, &trust(&root.pem, &[]), now);
    assert!(matches!(refused, Err(Unverified::Certificate(CertificateError::Chain(_)))), "{refused:?}");
    assert_eq!(Authority::from_pem("").expect_err("nothing"), CertificateError::Absent);
    let many = root.pem.repeat(17);
    assert_eq!(Authority::from_pem(&many).expect_err("too many"), CertificateError::TooMany);
}

/// A root's own time counts, too: an anchor has none for the library below.
#[test]
fn an_expired_root_opens_nothing() {
    let image = Digest::of(b"image");
    let (mut old, key) = (params("root", true), KeyPair::generate().expect("a key"));
    old.not_after = time::OffsetDateTime::now_utc() - time::Duration::HOUR;
    let root = Made { pem: old.self_signed(&key).expect("a certificate").pem(), key, params: old };
    let leaf = issued(&root, params("alice", false));
    let now = Timestamp::now();
    let refused = verify(&signed(&leaf, None, &image), &image, &trust(&root.pem, &[]), now);
    assert!(matches!(refused, Err(Unverified::Certificate(CertificateError::Expired { .. }))), "{refused:?}");
    // Its successor beside it is good.
    let next = self::root("next");
    let both = trust(&format!("{}{}", root.pem, next.pem), &[]);
    let (of_next, of_old) =
        (signed(&issued(&next, params("bob", false)), None, &image), signed(&leaf, None, &image));
    assert!(verify(&of_next, &image, &both, now).is_ok());
    assert!(verify(&of_old, &image, &both, now).is_err());
}
