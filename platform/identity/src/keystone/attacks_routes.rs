//! Every route of the API, as the table has them: without a token, and with one of another organisation's project.

use serde_json::json;

use super::tests::Platform;
use crate::tenancy::tests::organisations;
use crate::token::TokenScope;

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// Routes that name something of a project's; fewer means that the name of a parameter was lost.
const ROUTES_MIN: usize = 40;
/// What is no answer: nobody known, not for you, not there, no such method.
const REFUSED: [u16; 4] = [401, 403, 404, 405];

/// The path below `/identity/v3` with what is acme's in it, where the route names something of acme's.
fn of_acme(template: &str) -> Option<String> {
    let path = template.strip_prefix("/identity/v3")?;
    let named = ["{project}", "{domain}", "{user}"].iter().any(|parameter| path.contains(parameter));
    let mut path = path.replace("{project}", "web").replace("{domain}", "acme").replace("{user}", "alice");
    while let (Some(from), Some(to)) = (path.find('{'), path.find('}')) {
        path.replace_range(from..=to, "x");
    }
    named.then_some(path)
}

#[tokio::test]
async fn another_organisations_token_opens_no_route() {
    let state =
        organisations(&["admin alice project:web", "admin eve project:lab", "reader eve project:lab"]);
    let platform = Platform::of(state);
    let lab = TokenScope::Project { id: "lab".to_owned(), domain: "globex".to_owned() };
    let eves = platform.token("eve", lab);
    let said = platform.call(&eves, "GET /projects/lab", json!(null)).await;
    assert_eq!(said.status, 200, "her own: {said:?}");
    let paths = super::paths();
    let of_acme: Vec<String> = paths.iter().filter_map(|template| of_acme(template)).collect();
    assert!(of_acme.len() > ROUTES_MIN, "{} routes are not all of them", of_acme.len());
    // What some handlers want to read before they ask whose it is.
    let body = json!({ "tags": ["x"], "application_credential": { "name": "x" } });
    let mut answered = Vec::new();
    for path in &of_acme {
        for method in METHODS {
            // The body holds the password that is to be changed.
            if (method, path.as_str()) == ("POST", "/users/alice/password") {
                continue;
            }
            let what = format!("{method} {path}");
            for (who, token) in [("eve", eves.as_str()), ("a stranger", "")] {
                let said = platform.call(token, &what, body.clone()).await;
                if !REFUSED.contains(&said.status) {
                    answered.push(format!("{what} by {who}: {said:?}"));
                }
            }
        }
    }
    assert!(answered.is_empty(), "{}", answered.join("\n"));
}
