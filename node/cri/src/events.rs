//! containerd's own event stream (`containerd.services.events.v1`), read to learn of exits at once.
//!
//! CRI of containerd 1.6 has no event stream; this one is served on the same socket by every containerd.

use http::uri::PathAndQuery;
use prost::Message;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::client::{CriError, Runtime};

const METHOD: &str = "/containerd.services.events.v1.Events/Subscribe";
/// The namespace in which containerd's CRI plugin keeps its containers.
const CRI_NAMESPACE: &str = "k8s.io";

#[derive(Clone, PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

/// The fields that `TaskExit`, `TaskOOM` and `TaskDelete` have in common or that matter here.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskExit {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint32, tag = "4")]
    exit_status: u32,
}

/// Something that happened to a container or sandbox (containerd calls both containers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first process of the container ended; CRI's record of it follows within milliseconds.
    Exited {
        /// Container or sandbox id.
        id: String,
        /// Exit status; 128 + signal for a killed process.
        status: u32,
    },
    /// The kernel killed a process of the container for want of memory.
    Oom {
        /// Container id.
        id: String,
    },
}

/// An open subscription.
#[derive(Debug)]
pub struct Events(Streaming<Envelope>);

impl Events {
    /// The next event. `None` when the stream ended, as it does when containerd stops: subscribe again, then
    /// read all state anew, for events in between are lost.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let envelope = self.0.message().await.ok()??;
            if let Some(event) = decode(&envelope) {
                return Some(event);
            }
        }
    }
}

fn decode(envelope: &Envelope) -> Option<Event> {
    let any = envelope.event.as_ref()?;
    if envelope.namespace != CRI_NAMESPACE {
        return None;
    }
    match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::decode(any.value.as_slice()).ok()?;
            // An exec session inside the container has an id of its own.
            (exit.id == exit.container_id)
                .then_some(Event::Exited { id: exit.container_id, status: exit.exit_status })
        }
        // Only the first field is needed, and it has the same number there.
        "/tasks/oom" => Some(Event::Oom { id: TaskOom::decode(any.value.as_slice()).ok()?.container_id }),
        _ => None,
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct TaskOom {
    #[prost(string, tag = "1")]
    container_id: String,
}

impl Runtime {
    /// Subscribes to exits and memory kills of CRI's containers.
    pub async fn events(&self) -> Result<Events, CriError> {
        let mut grpc = Grpc::new(self.channel());
        let failed = |code, message: String| CriError { method: METHOD, code, message };
        grpc.ready().await.map_err(|e| failed(tonic::Code::Unavailable, e.to_string()))?;
        let request = SubscribeRequest {
            filters: vec!["topic==\"/tasks/exit\"".into(), "topic==\"/tasks/oom\"".into()],
        };
        let codec = ProstCodec::<SubscribeRequest, Envelope>::default();
        let stream = grpc
            .server_streaming(tonic::Request::new(request), PathAndQuery::from_static(METHOD), codec)
            .await
            .map_err(|status| failed(status.code(), status.message().to_owned()))?;
        Ok(Events(stream.into_inner()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(namespace: &str, topic: &str, value: Vec<u8>) -> Envelope {
        Envelope {
            namespace: namespace.into(),
            topic: topic.into(),
            event: Some(Any { type_url: String::new(), value }),
        }
    }

    #[test]
    fn only_first_processes_of_cri_containers_count() {
        let exit =
            |id: &str| TaskExit { container_id: "c".into(), id: id.into(), exit_status: 137 }.encode_to_vec();
        let exited = Some(Event::Exited { id: "c".into(), status: 137 });
        assert_eq!(decode(&envelope("k8s.io", "/tasks/exit", exit("c"))), exited);
        assert_eq!(decode(&envelope("k8s.io", "/tasks/exit", exit("exec-1"))), None);
        assert_eq!(decode(&envelope("moby", "/tasks/exit", exit("c"))), None);
        let oom = TaskOom { container_id: "c".into() }.encode_to_vec();
        assert_eq!(decode(&envelope("k8s.io", "/tasks/oom", oom)), Some(Event::Oom { id: "c".into() }));
        assert_eq!(decode(&envelope("k8s.io", "/tasks/start", exit("c"))), None);
    }
}
