//! The example plugin `greeter`, called by tonic's gRPC client.

use std::pin::pin;

use futures_util::{StreamExt, stream};
use host_tests::{Host, Setup, within};
use hyper::http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

// The messages of proto/greeter.proto.

#[derive(Clone, PartialEq, Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
}

/// A request for several greetings.
#[derive(Clone, PartialEq, Message)]
struct Often {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    times: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Greeting {
    #[prost(string, tag = "1")]
    text: String,
}

#[tokio::test]
async fn a_unary_call_is_answered_or_has_a_status() {
    let (_host, mut client) = greeter().await;
    let codec = || ProstCodec::<Name, Greeting>::default();
    let call = client.unary(Request::new(name("Ada")), path("Greet"), codec());
    let response = within("an answer", call).await.unwrap();
    assert_eq!(response.get_ref().text, "hello Ada");
    // tonic reads the status from the trailers.
    assert_eq!(response.metadata().get("grpc-status").unwrap(), "0");

    client.ready().await.unwrap();
    let call = client.unary(Request::new(name("")), path("Greet"), codec());
    let status = within("an answer", call).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "nobody to greet")
    );

    client.ready().await.unwrap();
    let call = client.unary(Request::new(name("Ada")), path("Insult"), codec());
    assert_eq!(
        within("an answer", call).await.unwrap_err().code(),
        Code::Unimplemented
    );
}

#[tokio::test]
async fn the_server_streams() {
    let (_host, mut client) = greeter().await;
    for times in [0, 1, 5000] {
        client.ready().await.unwrap();
        let often = Often {
            name: "Ada".into(),
            times,
        };
        let codec = ProstCodec::<Often, Greeting>::default();
        let call = client.server_streaming(Request::new(often), path("GreetOften"), codec);
        let mut greetings = within("an answer", call).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(greeting) = next(&mut greetings).await.unwrap() {
            assert_eq!(greeting.text, "hello Ada");
            count += 1;
        }
        assert_eq!(count, times);
    }
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_its_status() {
    let (_host, mut client) = greeter().await;
    let often = Often {
        name: String::new(),
        times: 3,
    };
    let codec = ProstCodec::<Often, Greeting>::default();
    let call = client.server_streaming(Request::new(often), path("GreetOften"), codec);
    let mut greetings = within("an answer", call).await.unwrap().into_inner();
    let status = next(&mut greetings).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_client_streams() {
    let (_host, mut client) = greeter().await;
    let names = stream::iter(["Ada", "Grace", "Barbara"].map(name));
    let codec = ProstCodec::<Name, Greeting>::default();
    let call = client.client_streaming(Request::new(names), path("GreetAll"), codec);
    let response = within("an answer", call).await.unwrap();
    assert_eq!(
        response.into_inner().text,
        "hello Ada and Grace and Barbara"
    );
}

#[tokio::test]
async fn both_stream_and_take_turns() {
    let (host, mut client) = greeter().await;
    let (sender, mut names) = mpsc::unbounded_channel();
    let names = stream::poll_fn(move |context| names.poll_recv(context));
    let codec = ProstCodec::<Name, Greeting>::default();
    let call = client.streaming(Request::new(names), path("GreetEach"), codec);
    let mut call = pin!(call);
    sender.send(name("Ada")).unwrap();
    let mut greetings = within("an answer", &mut call).await.unwrap().into_inner();
    assert_eq!(
        next(&mut greetings).await.unwrap().unwrap().text,
        "hello Ada"
    );
    for person in ["Grace", "Barbara"] {
        sender.send(name(person)).unwrap();
        let greeting = next(&mut greetings).await.unwrap().unwrap();
        assert_eq!(greeting.text, format!("hello {person}"));
    }
    drop(sender);
    assert!(next(&mut greetings).await.unwrap().is_none());
    drop(host);
}

/// Starts a host with the plugin `greeter`, and connects a gRPC client to it.
async fn greeter() -> (Host, Grpc<Channel>) {
    let host = Setup::new().plugin("greeter").start().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", host.address())).unwrap();
    let channel = within("a connection", endpoint.connect()).await.unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    (host, client)
}

fn name(name: &str) -> Name {
    Name { name: name.into() }
}

/// Returns the path of a method of the service.
fn path(method: &str) -> PathAndQuery {
    format!("/greeter.Greeter/{method}").parse().unwrap()
}

/// Waits for the next greeting. Returns `None` at the end of the stream.
async fn next(greetings: &mut Streaming<Greeting>) -> Result<Option<Greeting>, Status> {
    within("a greeting", greetings.next()).await.transpose()
}
