//! The table of routes: paths below `/identity/v3`, each with what it answers to.

use super::call::Api;

/// Routes of one part of the API.
pub(crate) type Routes = gantry_routes::Routes<Api>;
