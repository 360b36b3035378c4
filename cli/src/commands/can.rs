//! `gantry can VERB RESOURCE`: may I, or may they, and by which binding.

use anyhow::bail;
use gantry_identity_api::{Group, Project, Role, User};
use gantry_registry_api::Owner;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::Context;
use crate::commands::identity::lookup::{Lookup, plain};

const EXPLAIN: &str = "/apis/authorization.gantry.dev/v1alpha1/explain";
/// Those of a project or a domain are named by whose they are; those of a namespace are in it.
const RECORDS: (&str, &str) = (gantry_audit_api::GROUP, gantry_audit_api::RESOURCE);

#[derive(clap::Args, Debug)]
pub struct CanArgs {
    /// get, list, watch, create, update, patch, delete, … or any verb of a virtual resource (pull, push)
    verb: String,
    /// pods, pods/NAME, deployments.apps, repositories.registry.gantry.dev/DOMAIN/PROJECT/NAME,
    /// records.audit.gantry.dev/DOMAIN[/PROJECT], or a path such as /healthz
    #[arg(value_name = "RESOURCE[/NAME]")]
    resource: String,
    /// The subresource: log, exec, scale, status, …
    #[arg(long)]
    subresource: Option<String>,
    /// In this namespace (default: the context's)
    #[arg(short, long)]
    namespace: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Ask about this user
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// Ask about a member of this group (may be repeated)
    #[arg(long = "as-group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Say which binding grants it, or the nearest that is missing
    #[arg(long)]
    why: bool,
    /// Output format
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

pub async fn run(arguments: CanArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.kube()?;
    let question = question(&arguments, context.default_namespace(), &client).await?;
    let body = serde_json::to_vec(&json!({ "spec": by_id(&question, &client).await }))?;
    let request = http::Request::post(EXPLAIN).header("content-type", "application/json").body(body)?;
    let answer: Value = client.request(request).await.map_err(plain)?;
    let status = &answer["status"];
    let allowed = status["allowed"] == true;
    if arguments.output.is_some() {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        println!("{}", if allowed { "yes" } else { "no" });
        if arguments.why {
            print!("{}", explained(status));
        }
    }
    if allowed {
        return Ok(());
    }
    bail!("{} may not {}", who(&arguments), what(&question))
}

fn who(arguments: &CanArgs) -> String {
    match (&arguments.user, arguments.groups.as_slice()) {
        (Some(user), _) => format!("user {user:?}"),
        (None, []) => "you".to_owned(),
        (None, groups) => format!("group {:?}", groups.join(", ")),
    }
}

fn what(question: &Value) -> String {
    let text = |pointer: &str| question.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if question.get("nonResourceAttributes").is_some() {
        return format!("{} {}", text("/nonResourceAttributes/verb"), text("/nonResourceAttributes/path"));
    }
    let field = |name: &str| text(&format!("/resourceAttributes/{name}")).to_owned();
    let mut out = format!("{} {}", field("verb"), field("resource"));
    if !field("group").is_empty() {
        out.push_str(&format!(".{}", field("group")));
    }
    for (before, name) in [("/", "subresource"), (" ", "name")] {
        if !field(name).is_empty() {
            out.push_str(&format!("{before}{}", field(name)));
        }
    }
    match field("namespace").as_str() {
        "" => out,
        namespace => format!("{out} in namespace {namespace:?}"),
    }
}

/// The `spec` of the question.
async fn question(arguments: &CanArgs, default: &str, client: &kube::Client) -> anyhow::Result<Value> {
    let mut spec = json!({});
    if let Some(user) = &arguments.user {
        spec["user"] = user.as_str().into();
    }
    if arguments.user.is_some() || !arguments.groups.is_empty() {
        // Everybody who has signed in is in these, as an impersonated user is.
        let mut groups = arguments.groups.clone();
        let user = arguments.user.as_deref().unwrap_or_default();
        groups.extend(implied_groups(user));
        groups.extend(own_groups(user, client).await);
        spec["groups"] = json!(groups);
    }
    if arguments.resource.starts_with('/') {
        spec["nonResourceAttributes"] = json!({"verb": arguments.verb, "path": arguments.resource});
        return Ok(spec);
    }
    let (kind, name) = arguments.resource.split_once('/').unwrap_or((&arguments.resource, ""));
    let resource = resolve(kind, client).await?;
    let namespace = match (&arguments.namespace, resource.namespaced) {
        // In discovery they are of no namespace; rights on them may be.
        (Some(namespace), _) if resource.is_records() && name.is_empty() => namespace,
        (_, false) => "",
        _ if arguments.all_namespaces => "",
        (Some(namespace), true) => namespace,
        (None, true) => default,
    };
    spec["resourceAttributes"] = json!({
        "verb": arguments.verb, "group": resource.group, "resource": resource.plural, "namespace": namespace,
        "name": name, "subresource": arguments.subresource.as_deref().unwrap_or_default(),
    });
    Ok(spec)
}

/// The question with the id in the place of a name, where it is about an object of identity that the caller sees by
/// that name, and whose records are meant. Every other name is taken as it is: it may be an id.
async fn by_id(question: &Value, client: &kube::Client) -> Value {
    let mut question = question.clone();
    let asked = &question["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default();
    let (resource, name) = (text("resource"), text("name"));
    if name.is_empty() {
        return question;
    }
    let lookup = Lookup::new(client.clone());
    if (text("group"), resource) == RECORDS {
        let owner = owner(name, &lookup).await.to_string();
        question["resourceAttributes"]["namespace"] = owner.into();
        question["resourceAttributes"]["name"] = "".into();
        return question;
    }
    if text("group") != gantry_identity_api::GROUP {
        return question;
    }
    let found = match resource {
        "domains" => lookup.domain(name).await.map(|found| found.name_any()),
        "projects" => lookup.find::<Project>(name).await.map(|found| found.name_any()),
        "users" => lookup.find::<User>(name).await.map(|found| found.name_any()),
        "groups" => lookup.find::<Group>(name).await.map(|found| found.name_any()),
        "roles" => lookup.find::<Role>(name).await.map(|found| found.name_any()),
        _ => return question,
    };
    if let Ok(id) = found {
        question["resourceAttributes"]["name"] = id.into();
    }
    question
}

/// Whose records are meant by `DOMAIN/PROJECT` or `DOMAIN`. Of one that the caller does not see, the answer is the same as
/// of one that is not there.
async fn owner(name: &str, lookup: &Lookup) -> Owner {
    if name.contains('/') {
        let found = lookup.find::<Project>(name).await;
        return Owner::of_project(found.map_or_else(|_| name.to_owned(), |project| project.name_any()));
    }
    let found = lookup.domain(name).await;
    Owner::of_domain(found.map_or_else(|_| name.to_owned(), |domain| domain.name_any()))
}

fn implied_groups(user: &str) -> Vec<String> {
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some((namespace, _)) =
        user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
    {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups
}

/// The groups that a user of a domain is in. None where there is no such user, or none that the caller sees: the
/// server says itself who may ask about others.
async fn own_groups(user: &str, client: &kube::Client) -> Vec<String> {
    if !user.contains('/') {
        return Vec::new();
    }
    let lookup = Lookup::new(client.clone());
    let Ok(found) = lookup.find::<User>(user).await else {
        eprintln!("note: {user} is nobody you can see; what comes by groups shows with --as-group");
        return Vec::new();
    };
    let (Ok(known), Ok(groups)) = (lookup.known().await, lookup.all::<Group>().await) else {
        return Vec::new();
    };
    let of_user = groups.iter().filter(|group| found.spec.groups.contains(&group.name_any()));
    of_user.map(|group| known.full_name(group)).collect()
}

struct Resolved {
    group: String,
    plural: String,
    namespaced: bool,
}

impl Resolved {
    fn is_records(&self) -> bool {
        (self.group.as_str(), self.plural.as_str()) == RECORDS
    }
}

/// Finds a resource by plural, singular, short name or kind. `NAME.GROUP` that the server does not list
/// is taken at its word: virtual resources (`repositories.registry.gantry.dev`) have no objects.
async fn resolve(kind: &str, client: &kube::Client) -> anyhow::Result<Resolved> {
    let (name, wanted) = kind.split_once('.').unwrap_or((kind, ""));
    let is_it = |found: &APIResource| {
        let short = found.short_names.iter().flatten().any(|short| short == name);
        !found.name.contains('/')
            && (found.name == name
                || found.singular_name == name
                || found.kind.eq_ignore_ascii_case(name)
                || short)
    };
    let resolved = |group: &str, found: &APIResource| Resolved {
        group: group.to_owned(),
        plural: found.name.clone(),
        namespaced: found.namespaced,
    };
    if wanted.is_empty()
        && let Some(found) = client.list_core_api_resources("v1").await?.resources.iter().find(|r| is_it(r))
    {
        return Ok(resolved("", found));
    }
    for group in client.list_api_groups().await?.groups {
        let version = group.preferred_version.as_ref().or(group.versions.first());
        let Some(version) = version.filter(|_| wanted.is_empty() || group.name == wanted) else { continue };
        let list = client.list_api_group_resources(&version.group_version).await?;
        if let Some(found) = list.resources.iter().find(|r| is_it(r)) {
            return Ok(resolved(&group.name, found));
        }
    }
    if wanted.is_empty() {
        bail!("the server doesn't have a resource type {kind:?}");
    }
    Ok(Resolved { group: wanted.to_owned(), plural: name.to_owned(), namespaced: true })
}

/// Where an assignment of identity holds; `None`: it is a binding in a namespace, or in the cluster.
fn scope(said: &Value) -> Option<String> {
    let text = |field: &str| said["scope"][field].as_str();
    Some(match (text("kind")?, text("name").unwrap_or_default()) {
        ("System", _) => "on the whole platform".to_owned(),
        (kind, name) => format!("in {} {name:?}", kind.to_ascii_lowercase()),
    })
}

/// One binding or assignment that grants it.
fn granted(grant: &Value) -> String {
    let text = |field: &str| grant[field].as_str().unwrap_or_default();
    let place = match (scope(grant), text("namespace")) {
        (Some(scope), _) if grant["inherited"] == true => format!(" inherited by every project {scope}"),
        (Some(scope), _) => format!(" {scope}"),
        (None, "") => String::new(),
        (None, namespace) => format!(" in namespace {namespace:?}"),
    };
    // An assignment's name says nothing to anybody: it is undone by role, actor and scope.
    let name = if grant["scope"].is_null() { format!(" {:?}", text("binding")) } else { String::new() };
    let implied = match text("implied") {
        "" => String::new(),
        role => format!(", with {role:?} in it,"),
    };
    let because = match text("because") {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    format!(
        "granted by {}{name}{place}: {} {:?}{implied} to {} {:?}{because}",
        text("bindingKind"),
        text("roleKind"),
        text("role"),
        text("subjectKind"),
        text("subject")
    )
}

/// What `--why` adds, a line each.
fn explained(status: &Value) -> String {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let list = |field: &str| status[field].as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    lines.extend(list("grants").iter().map(granted));
    let reason = text(status, "reason");
    if lines.is_empty() && !reason.is_empty() {
        lines.push(reason);
    }
    let held: Vec<String> = list("heldVerbs").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    if !held.is_empty() {
        lines.push(format!("allowed on the same: {}", held.join(", ")));
    }
    for missing in list("nearest").iter().take(5) {
        let place = match (scope(missing), text(missing, "namespace").as_str()) {
            (Some(scope), _) => scope,
            (None, "") => "for the whole cluster".to_owned(),
            (None, namespace) => format!("in namespace {namespace:?}"),
        };
        let bound: Vec<String> = missing["boundIn"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|place| place.as_str().map(str::to_owned))
            .collect();
        let elsewhere =
            if bound.is_empty() { String::new() } else { format!(" (held in {})", bound.join(", ")) };
        lines.push(format!(
            "missing: a {} {place} to {} {:?}{elsewhere}",
            text(missing, "bindingKind"),
            text(missing, "roleKind"),
            text(missing, "role")
        ));
    }
    lines.into_iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_in_lines() {
        let granted = json!({"allowed": true, "reason": "RBAC: …", "grants": [{
            "bindingKind": "RoleBinding", "namespace": "dev", "binding": "team", "roleKind": "ClusterRole",
            "role": "edit", "subjectKind": "Group", "subject": "acme/devs"}]});
        assert_eq!(
            explained(&granted),
            "  granted by RoleBinding \"team\" in namespace \"dev\": ClusterRole \"edit\" to Group \"acme/devs\"\n"
        );
        let refused = json!({"allowed": false, "heldVerbs": ["get", "list"], "nearest": [{
            "roleKind": "ClusterRole", "role": "edit", "bindingKind": "RoleBinding", "namespace": "prod",
            "boundIn": ["dev"]}]});
        assert_eq!(
            explained(&refused),
            "  allowed on the same: get, list\n  missing: a RoleBinding in namespace \"prod\" to ClusterRole \
             \"edit\" (held in dev)\n"
        );
        assert_eq!(
            explained(&json!({"allowed": true, "grants": [
                {"bindingKind": "RoleAssignment", "scope": {"kind": "Domain", "name": "acme"}, "inherited": true,
                 "binding": "0a1b", "roleKind": "Role", "role": "admin", "implied": "reader", "subjectKind": "User",
                 "subject": "acme/alice"},
                {"bindingKind": "RoleAssignment", "scope": {"kind": "Project", "name": "acme/shop"}, "binding": "2c",
                 "roleKind": "Role", "role": "reader", "subjectKind": "Group", "subject": "acme/devs",
                 "because": "the repository is shared with it"}]})),
            "  granted by RoleAssignment inherited by every project in domain \"acme\": Role \"admin\", with \
             \"reader\" in it, to User \"acme/alice\"\n  granted by RoleAssignment in project \"acme/shop\": Role \
             \"reader\" to Group \"acme/devs\" (the repository is shared with it)\n"
        );
        assert_eq!(
            explained(
                &json!({"allowed": false, "nearest": [{"roleKind": "Role", "role": "member", "bindingKind":
                "RoleAssignment", "scope": {"kind": "Project", "name": "acme/web"}, "boundIn": ["project acme/cart"]}]})
            ),
            "  missing: a RoleAssignment in project \"acme/web\" to Role \"member\" (held in project acme/cart)\n"
        );
        let question = json!({"resourceAttributes": {"verb": "create", "group": "apps", "resource": "deployments",
            "subresource": "scale", "name": "web", "namespace": "prod"}});
        assert_eq!(what(&question), "create deployments.apps/scale web in namespace \"prod\"");
        assert_eq!(
            implied_groups("system:serviceaccount:ci:bot"),
            ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:ci"]
        );
    }
}
