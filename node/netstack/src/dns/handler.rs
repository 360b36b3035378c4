//! One question, one response.

use std::sync::PoisonError;

use async_trait::async_trait;
use hickory_proto::op::{Edns, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use rand::seq::SliceRandom;

use super::SharedIndex;
use super::forward::Forwarder;
use super::index::{Answer, Zone};

/// Longest chain of aliases that is followed.
const ALIASES_MAX: usize = 8;
/// What fits unfragmented through every usual network (DNS flag day 2020).
const UDP_PAYLOAD_BYTES_MAX: u16 = 1232;

/// A response before it is a message.
pub(crate) struct Reply {
    pub code: ResponseCode,
    pub authoritative: bool,
    pub answers: Vec<Record>,
    pub soa: Option<Record>,
    pub additionals: Vec<Record>,
}

impl Reply {
    fn new(code: ResponseCode) -> Self {
        let (answers, additionals) = (Vec::new(), Vec::new());
        Self { code, authoritative: false, answers, soa: None, additionals }
    }
}

pub(crate) struct Handler {
    zone: Zone,
    index: SharedIndex,
    forwarder: Forwarder,
}

impl Handler {
    pub fn new(zone: Zone, index: SharedIndex, forwarder: Forwarder) -> Self {
        Self { zone, index, forwarder }
    }

    /// The answer to one question, aliases followed.
    pub async fn resolve(&self, name: &Name, kind: RecordType) -> Reply {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut reply = Reply::new(ResponseCode::NoError);
        reply.authoritative = true;
        let mut name = name.clone();
        for _ in 0..ALIASES_MAX {
            let answer = match &index {
                Some(index) => index.lookup(&name, kind),
                None if self.zone.domain.zone_of(&name.to_lowercase()) => {
                    return Reply::new(ResponseCode::ServFail);
                }
                None => Answer::NotOurs,
            };
            match answer {
                Answer::Found(mut answers, additionals) => {
                    answers.shuffle(&mut rand::rng());
                    reply.answers.extend(answers);
                    reply.additionals = additionals;
                    return reply;
                }
                Answer::Alias(record, target) => {
                    reply.answers.push(*record);
                    if kind == RecordType::CNAME {
                        return reply;
                    }
                    name = target;
                }
                Answer::NoData => {
                    reply.soa = Some(self.zone.soa());
                    return reply;
                }
                Answer::NxDomain => {
                    reply.code = ResponseCode::NXDomain;
                    reply.soa = Some(self.zone.soa());
                    return reply;
                }
                Answer::NotOurs => {
                    let forwarded = self.forwarder.ask(&name, kind).await;
                    reply.authoritative = !reply.answers.is_empty();
                    reply.code = forwarded.code;
                    reply.answers.extend(forwarded.answers);
                    reply.soa = forwarded.soa;
                    return reply;
                }
            }
        }
        Reply::new(ResponseCode::ServFail)
    }

    async fn reply_to(&self, request: &Request) -> Reply {
        if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
            return Reply::new(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Reply::new(ResponseCode::FormErr) };
        if request.version() > 0 {
            return Reply::new(ResponseCode::BADVERS);
        }
        if info.query.query_class() != DNSClass::IN {
            return Reply::new(ResponseCode::Refused);
        }
        self.resolve(info.query.original().name(), info.query.query_type()).await
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let reply = self.reply_to(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_PAYLOAD_BYTES_MAX));
            edns.set_rcode_high(reply.code.high());
            edns
        });
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = builder.build(metadata, &reply.answers, [], reply.soa.as_ref(), &reply.additionals);
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, client = %request.src(), "answering");
                let counts = hickory_proto::op::HeaderCounts::default();
                ResponseInfo::from(hickory_proto::op::Header { metadata, counts })
            }
        }
    }
}
