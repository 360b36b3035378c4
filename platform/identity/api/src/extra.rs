//! Keys in `UserInfo.extra` of callers the identity component recognised.

/// Id of the user.
pub const USER_ID: &str = "identity.gantry.dev/user-id";
/// Id of the domain the user belongs to.
pub const DOMAIN: &str = "identity.gantry.dev/domain";
/// Id of the project the token is scoped to.
pub const PROJECT: &str = "identity.gantry.dev/project";
/// Id of the domain the token is scoped to.
pub const SCOPE_DOMAIN: &str = "identity.gantry.dev/scope-domain";
/// `all` where the token is scoped to the system, or to the project whose administrators are the platform's.
pub const SYSTEM: &str = "identity.gantry.dev/system";
/// Ids of the roles the token is limited to, implied ones included.
pub const ROLES: &str = "identity.gantry.dev/roles";
/// How the caller proved who they are: `password`, `token`, `application_credential`, `totp`, `oidc`, …
pub const METHOD: &str = "identity.gantry.dev/method";
/// The token's own id (`jti`), by which it is revoked.
pub const TOKEN_ID: &str = "identity.gantry.dev/token-id";
/// The id of the first token of a chain, where this one was got with another.
pub const TOKEN_CHAIN: &str = "identity.gantry.dev/token-chain";
/// The identity provider that the user came by.
pub const PROVIDER: &str = "identity.gantry.dev/provider";
/// Ids of the OAuth consumer and access token that the token was made with.
pub const OAUTH: &str = "identity.gantry.dev/oauth";
/// Id of the trust the token was made with.
pub const TRUST: &str = "identity.gantry.dev/trust";
/// Id of the application credential the token was made with.
pub const APPLICATION_CREDENTIAL: &str = "identity.gantry.dev/application-credential";
/// Id of the project whose images the caller may pull. The credential is good for that and for nothing else.
pub const PULLS: &str = "identity.gantry.dev/pulls";
