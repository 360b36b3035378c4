//! Lists that show each caller what is theirs, where they may not list everything.
//!
//! [`ViewAuthorizer`] lets `list`, `watch` and `get` of the resources concerned through; the handlers
//! ask [`Views::of`] again, with the authoriser that knows nothing of views, and show a caller without
//! full rights only what is visible. A request can come through the first only into the second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::select_all;
use gantry_kube_types::{Attributes, Authorizer, Decision, Explanation, UserInfo, Visibility, groups};
use gantry_store::{Revision, Store};
use tokio::sync::watch;

use crate::request::Context;

/// Changes of rights come in bursts (a project is made): open watches look again this often at most.
pub(crate) const RECHECK_PERIOD: Duration = Duration::from_millis(200);

/// Who sees what of which resource.
pub struct Views {
    /// Without views.
    authorizer: Arc<dyn Authorizer>,
    sources: Vec<Arc<dyn Visibility>>,
    resources: Vec<(String, String)>,
    store: Store,
    noticed: Mutex<Noticed>,
    signal: watch::Sender<u64>,
}

/// The newest change of visibility that somebody has come across.
#[derive(Default)]
struct Noticed {
    generations: Vec<u64>,
    /// It was there at this revision of the store.
    revision: Revision,
}

impl Views {
    /// `authorizer` decides on full rights; `sources` make objects visible beyond those the caller may
    /// `get` by it.
    pub fn new(
        store: Store,
        authorizer: Arc<dyn Authorizer>,
        sources: Vec<Arc<dyn Visibility>>,
    ) -> Arc<Self> {
        let mut resources: Vec<_> = sources.iter().flat_map(|source| source.resources()).collect();
        resources.sort();
        resources.dedup();
        let generations = sources.iter().map(|source| source.generation()).collect();
        let noticed = Mutex::new(Noticed { generations, revision: 0 });
        Arc::new(Self { authorizer, sources, resources, store, noticed, signal: watch::Sender::new(0) })
    }

    fn covers(&self, group: &str, resource: &str) -> bool {
        self.resources.iter().any(|(g, r)| g == group && r == resource)
    }

    /// What the caller of a list or watch sees; `None`: this resource has no views.
    pub(crate) fn of(self: &Arc<Self>, context: &Context) -> Option<View> {
        let (info, user) = (&context.info, &context.user);
        // Masters see everything, and cannot lose it while they watch.
        if !self.covers(&info.group, &info.resource) || user.in_group(groups::MASTERS) {
            return None;
        }
        Some(View::new(self.clone(), Attributes::of(user, info)))
    }

    fn sees(&self, asked: &mut Attributes, name: &str) -> bool {
        let Attributes { user, group, resource, .. } = &*asked;
        if self.sources.iter().any(|source| source.hides(user, group, resource, name)) {
            return false;
        }
        if self.sources.iter().any(|source| source.visible(user, group, resource, name)) {
            return true;
        }
        name.clone_into(&mut asked.name);
        if asked.group.is_empty() && asked.resource == "namespaces" {
            name.clone_into(&mut asked.namespace);
        }
        self.authorizer.authorize(asked).is_allowed()
    }

    /// The revision from which on a watch may go on without a new list: what was visible before is not
    /// known any more.
    fn settled_since(&self) -> Revision {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<u64> = self.sources.iter().map(|source| source.generation()).collect();
        if noticed.generations != now {
            *noticed = Noticed { generations: now, revision: self.store.revision() };
        }
        noticed.revision
    }
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").field("resources", &self.resources).finish_non_exhaustive()
    }
}

/// One caller's view of one resource.
pub(crate) struct View {
    views: Arc<Views>,
    /// The list itself.
    list: Attributes,
    /// A `get` of one object; its name changes from question to question.
    get: Attributes,
    full: bool,
    since: Revision,
}

impl View {
    fn new(views: Arc<Views>, list: Attributes) -> Self {
        let get = Attributes { verb: "get".to_owned(), ..list.clone() };
        let since = views.settled_since();
        let mut view = Self { views, list, get, full: false, since };
        view.refresh();
        view
    }

    /// May the caller list everything now?
    pub(crate) fn refresh(&mut self) {
        self.full = self.views.authorizer.authorize(&self.list).is_allowed();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Events before this revision cannot be shown: whether the caller saw their objects is not known.
    pub(crate) fn since(&self) -> Revision {
        self.since
    }

    pub(crate) fn sees(&mut self, name: &str) -> bool {
        self.full || self.views.sees(&mut self.get, name)
    }

    /// Marks every change of what is visible.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.views.signal.subscribe()
    }
}

/// Lets those who see a part of a resource list that part, and get what they see.
pub struct ViewAuthorizer {
    views: Arc<Views>,
}

impl ViewAuthorizer {
    pub fn new(views: Arc<Views>) -> Self {
        Self { views }
    }

    fn opens(&self, asked: &Attributes) -> bool {
        let namespaces = asked.group.is_empty() && asked.resource == "namespaces";
        let concerned = asked.is_resource_request
            && asked.subresource.is_empty()
            && (asked.namespace.is_empty() || (namespaces && asked.namespace == asked.name))
            && !asked.user.is_anonymous()
            && self.views.covers(&asked.group, &asked.resource);
        match asked.verb.as_str() {
            "list" | "watch" => concerned,
            "get" => concerned && !asked.name.is_empty() && self.sees(&asked.user, asked),
            _ => false,
        }
    }

    fn sees(&self, user: &UserInfo, asked: &Attributes) -> bool {
        let Attributes { group, resource, name, .. } = asked;
        let sources = &self.views.sources;
        !sources.iter().any(|source| source.hides(user, group, resource, name))
            && sources.iter().any(|source| source.visible(user, group, resource, name))
    }
}

impl Authorizer for ViewAuthorizer {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        match self.views.authorizer.authorize(attributes) {
            Decision::NoOpinion(_) if self.opens(attributes) => Decision::Allow(format!(
                "the {} that {:?} has rights in are shown",
                attributes.resource, attributes.user.username
            )),
            decided => decided,
        }
    }

    /// All only grow, and so does their sum.
    fn decisions_version(&self, user: &UserInfo) -> Option<u64> {
        let shown: u64 = self.views.sources.iter().map(|source| source.generation()).sum();
        Some(self.views.authorizer.decisions_version(user)? + shown)
    }

    fn explain(&self, attributes: &Attributes, listener: &UserInfo) -> Option<Explanation> {
        self.views.authorizer.explain(attributes, listener)
    }
}

/// Tells open watches that rights have changed, for as long as the process lives.
pub async fn run(views: Arc<Views>) {
    if views.sources.is_empty() {
        return;
    }
    let mut told: Vec<u64> = Vec::new();
    loop {
        let seen: Vec<u64> = views.sources.iter().map(|source| source.generation()).collect();
        if seen != told {
            views.signal.send_modify(|count| *count += 1);
            told.clone_from(&seen);
        }
        let waiting = views.sources.iter().zip(&seen).map(|(source, seen)| source.changed(*seen));
        select_all(waiting).await;
    }
}
