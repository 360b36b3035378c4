use gantry_identity_api::{DomainSpec, ProjectSpec, Quota};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn domain(id: &str, name: &str) -> Option<Arc<Domain>> {
    let spec = DomainSpec { name: Some(name.to_owned()), ..DomainSpec::default() };
    Some(Arc::new(Domain::new(id, spec)))
}

fn project(id: &str, domain: &str, name: &str) -> Option<Arc<Project>> {
    let spec =
        ProjectSpec { name: Some(name.to_owned()), domain: domain.to_owned(), ..ProjectSpec::default() };
    Some(Arc::new(Project::new(id, spec)))
}

fn with_images(bytes: Option<u64>) -> Quota {
    Quota { images: bytes.map(|bytes| bytes.to_string()), ..Quota::default() }
}

fn put_domain(names: &mut Names, id: &str, bytes: Option<u64>) {
    let mut new = domain(id, id).as_deref().cloned().expect("a domain");
    new.spec.quota = with_images(bytes);
    names.domain(&Change { old: None, new: Some(Arc::new(new)) });
}

fn put_project(names: &mut Names, id: &str, parent: Option<&str>, bytes: Option<u64>) -> Arc<Project> {
    let mut new = project(id, "acme", id).as_deref().cloned().expect("a project");
    new.spec.parent = parent.map(str::to_owned);
    new.spec.quota = with_images(bytes);
    let new = Arc::new(new);
    names.project(&Change { old: None, new: Some(new.clone()) });
    new
}

/// `shop<web=4`: a project below another, with a quota; `acme=100` is the domain's.
fn nested(text: &str) -> Names {
    let mut names = Names::default();
    put_domain(&mut names, "acme", None);
    for part in text.split(' ') {
        let (path, bytes) = part.split_once('=').map_or((part, None), |(path, b)| (path, b.parse().ok()));
        let (id, parent) = path.split_once('<').map_or((path, None), |(id, parent)| (id, Some(parent)));
        match id {
            "acme" => put_domain(&mut names, id, bytes),
            id => drop(put_project(&mut names, id, parent, bytes)),
        }
    }
    names
}

/// `web 10-4: shop web`: whose, the bytes, what of them is given away, and what counts.
fn shown(names: &Names, owner: &Owner) -> String {
    let id = |owner: &Owner| owner.project.clone().or_else(|| owner.domain.clone()).unwrap_or_default();
    let bound = |bound: OwnersBound| {
        let mut counted: Vec<String> = bound.counted.iter().map(id).collect();
        counted.sort();
        format!("{} {}-{}: {}", id(&bound.holder), bound.bytes_max, bound.given_bytes, counted.join(" "))
    };
    names.bounds(owner).into_iter().map(bound).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_quota_loses_what_is_given_away_below_it() {
    let web = Owner::of_project("web");
    for (tree, owner, wanted) in [
        ("web lab", &web, ""),
        ("web=10 shop<web lab=3", &web, "web 10-0: shop web"),
        // The nearest loses what was given, and the use of whom it was given to does not count in it.
        ("web=10 shop<web=4", &web, "web 10-4: web"),
        ("web=10 shop<web=4 cart<shop=3 van<web=2", &web, "web 10-6: web"),
        // Past a project without a quota.
        ("web=10 shop<web cart<shop=4", &web, "web 10-4: shop web"),
        ("web=10 shop<web cart<shop=4", &Owner::of_project("shop"), "web 10-4: shop web"),
        // Further up, all that is in use counts, and nothing is given away.
        ("web=10 shop<web=4", &Owner::of_project("shop"), "shop 4-0: shop; web 10-0: shop web"),
        ("acme=100 web=10 lab", &web, "web 10-0: web; acme 100-0: acme lab web"),
        ("acme=100 web=10 lab shop<web=4 old=20", &Owner::of_domain("acme"), "acme 100-30: acme lab"),
        ("acme=100 web=10 lab", &Owner::of_project("lab"), "acme 100-10: acme lab"),
        // More was given than there is left: a quota was made smaller since.
        ("web=3 shop<web=4", &web, "web 3-4: web"),
        ("acme=100 web=10", &Owner::default(), ""),
        ("acme=100 web=10", &Owner::of_project("nothing"), ""),
    ] {
        assert_eq!(shown(&nested(tree), owner), wanted, "{tree} {owner}");
    }
}

/// Until its repositories are gone, too, it is as if they were what is above it had.
#[test]
fn what_is_left_of_a_project_that_is_gone_counts_above_it() {
    let mut names = nested("acme=100 web=10 lab");
    let shop = put_project(&mut names, "shop", Some("web"), Some(4));
    names.project(&Change { old: Some(shop), new: None });
    let of_shop = Owner::of_project("shop");
    assert!(!names.knows(&of_shop));
    assert_eq!(shown(&names, &of_shop), "web 10-0: shop web; acme 100-0: acme lab shop web");
    assert_eq!(shown(&names, &Owner::of_project("web")), shown(&names, &of_shop));
    // The one above is gone, too: what is left is the domain's to answer for.
    names.project(&Change { old: project("web", "acme", "web"), new: None });
    assert_eq!(shown(&names, &of_shop), "acme 100-0: acme lab shop web");
    let catalogue = Catalogue::default();
    *catalogue.0.names.write().expect("no panic") = names;
    catalogue.forget_gone(&of_shop);
    catalogue.forget_gone(&Owner::of_project("web"));
    assert_eq!(shown(&catalogue.names(), &Owner::of_domain("acme")), "acme 100-0: acme lab");
    assert_eq!(shown(&catalogue.names(), &of_shop), "");
}

/// What the owner may push more, as a push finds out: every bound says it.
fn left(names: &Names, used: &BTreeMap<String, u64>, owner: &Owner) -> u64 {
    let of = |counted: &HashSet<Owner>| {
        let ids = counted.iter().filter_map(|owner| owner.project.as_ref());
        ids.filter_map(|id| used.get(id)).sum::<u64>()
    };
    let room = names.bounds(owner).into_iter().map(|bound| {
        let used = of(&bound.counted);
        let (whose, bytes_max, given_bytes) = (String::new(), bound.bytes_max, bound.given_bytes);
        let bound = Bound { whose, bytes_max, given_bytes, repositories: HashSet::new() };
        // The most that is not refused.
        let left = bound.own_bytes_max().saturating_sub(used);
        assert!(!bound.is_exceeded(used, left) && bound.is_exceeded(used, left + 1));
        left
    });
    room.min().unwrap_or(u64::MAX)
}

/// Quotas as people think of them, worked out another way than by the code.
#[derive(Debug)]
struct Promised {
    of_domain: Option<u64>,
    /// The one above, and the quota, of each.
    projects: Vec<(Option<usize>, Option<u64>)>,
}

impl Promised {
    /// Who answers for what is at `from`; `None`: the domain.
    fn holder(&self, from: Option<usize>) -> Option<usize> {
        let (above, bound) = self.projects[from?];
        if bound.is_some() { from } else { self.holder(above) }
    }

    /// What is left of the quota of who answers, when what it gave away is taken from it; `None`: it has no quota.
    fn kept(&self, holder: Option<usize>) -> Option<u64> {
        let bound = holder.map_or(self.of_domain, |at| self.projects[at].1)?;
        let given = self.projects.iter().filter(|(above, _)| self.holder(*above) == holder);
        Some(bound - given.filter_map(|(_, bound)| *bound).sum::<u64>())
    }
}

proptest! {
    /// Quotas as identity lets them in, then pushes by anybody: what was given is there for whom it was given to, and
    /// nobody's quota is exceeded.
    #[test]
    fn what_was_given_is_there_whatever_others_push(
        of_domain in proptest::option::of(0u64..100),
        projects in proptest::collection::vec((any::<Index>(), proptest::option::of(0u64..40)), 1..9),
        pushes in proptest::collection::vec((any::<Index>(), 1u64..30), 0..60),
    ) {
        let (mut names, mut promised) = (Names::default(), Promised { of_domain, projects: Vec::new() });
        put_domain(&mut names, "acme", of_domain);
        for (at, (above, wanted)) in projects.iter().enumerate() {
            // Below one of those before it, or the domain.
            let above = above.index(at + 1).checked_sub(1);
            let carved = promised.kept(promised.holder(above)).unwrap_or(u64::MAX);
            let bound = wanted.map(|wanted| wanted.min(carved));
            let parent = above.map(|parent| format!("p{parent}"));
            put_project(&mut names, &format!("p{at}"), parent.as_deref(), bound);
            promised.projects.push((above, bound));
        }
        let mut used: BTreeMap<String, u64> = BTreeMap::new();
        for (who, bytes) in &pushes {
            let id = format!("p{}", who.index(projects.len()));
            if left(&names, &used, &Owner::of_project(&id)) >= *bytes {
                *used.entry(id).or_default() += bytes;
            }
        }
        for at in 0..projects.len() {
            let holder = promised.holder(Some(at));
            // Only what counts in the same quota is in its way.
            let beside = (0..projects.len()).filter(|other| promised.holder(Some(*other)) == holder);
            let beside: u64 = beside.filter_map(|other| used.get(&format!("p{other}"))).sum();
            let wanted = promised.kept(holder).map_or(u64::MAX, |kept| {
                assert!(beside <= kept, "p{at} has more than it was given: {promised:?} {used:?}");
                kept - beside
            });
            let room = left(&names, &used, &Owner::of_project(format!("p{at}")));
            prop_assert_eq!(room, wanted, "p{}: {:?} {:?}", at, &promised, &used);
        }
    }
}

#[test]
fn names_say_whose_a_new_repository_is() {
    let mut names = Names::default();
    names.domain(&Change { old: None, new: domain("d1", "acme") });
    names.project(&Change { old: None, new: project("p1", "d1", "web") });
    for (repository, owner, shown) in [
        ("acme/web/front", "project:p1", "project acme/web"),
        ("acme/web/front/end", "project:p1", "project acme/web"),
        ("acme/web", "domain:d1", "domain acme"),
        ("acme/base/debian", "domain:d1", "domain acme"),
        ("acme", "platform", "platform"),
        ("d1/p1/x", "platform", "platform"),
        ("demo/hello", "platform", "platform"),
        ("library/acme/web", "platform", "platform"),
    ] {
        let found = names.owner(repository);
        assert_eq!((found.to_string().as_str(), names.shown(&found).as_str()), (owner, shown));
    }
    names.project(&Change { old: project("p1", "d1", "web"), new: project("p1", "d1", "site") });
    names.project(&Change { old: None, new: project("p2", "d1", "web") });
    assert_eq!(names.owner("acme/web/front").to_string(), "project:p2");
    assert_eq!(names.shown(&Owner::of_project("p1")), "project acme/site");
    names.domain(&Change { old: domain("d1", "acme"), new: None });
    assert_eq!(names.owner("acme/web/front"), Owner::default());
    assert_eq!(names.shown(&Owner::of_project("gone")), "project gone");
}
