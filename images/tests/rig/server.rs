//! A server on loopback that answers as a test wants it, byte by byte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dyno_images::{Digest, Reference};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Tar, gzip};

/// What a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

/// What the server does about it: sends these bytes, then closes or hangs.
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hang: bool,
}

/// A server of one test; each connection carries one request.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `reply` gets the request and how many there were for that path before it.
    pub(crate) async fn start(
        reply: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (seen, reply) = (requests.clone(), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, seen.clone(), reply.clone()));
            }
        });
        Server { port, requests }
    }

    pub(crate) fn requests(&self, path: &str) -> Vec<Request> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .filter(|r| r.path.contains(path))
            .cloned()
            .collect()
    }

    pub(crate) fn reference(&self) -> Reference {
        format!("127.0.0.1:{}/app:1", self.port).parse().unwrap()
    }
}

pub(crate) async fn answer(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    reply: Arc<impl Fn(&Request, usize) -> Reply>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_closed) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let request = Request { path, headers };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen
            .iter()
            .filter(|earlier| earlier.path == request.path)
            .count();
        seen.push(request.clone());
        before
    };
    let reply = reply(&request, before);
    // The client may have gone.
    stream.write_all(&reply.bytes).await.ok();
    if reply.hang {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
}

pub(crate) fn reply(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    Reply {
        bytes: [head.as_bytes(), b"\r\n", body].concat(),
        hang: false,
    }
}

/// An image of one layer, and a well-behaved answer to each request for its parts.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layer: Vec<u8>,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        // Does not compress well, so that halves of it are long enough to matter.
        let noise: String = (0..40_000_u64)
            .map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let tar = Tar::default().file("f", &noise).end();
        let layer = gzip(&tar);
        let config = json!({
            "architecture": dyno_images::Platform::host().architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]},
        });
        let config = config.to_string().into_bytes();
        let mut fixture = Fixture {
            manifest: Vec::new(),
            config,
            layer,
        };
        fixture.manifest = fixture.manifest_json().to_string().into_bytes();
        fixture
    }

    pub(crate) fn manifest_json(&self) -> serde_json::Value {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": Digest::of(&self.config), "size": self.config.len()},
            "layers": [{"mediaType": format!("{OCI_LAYER}+gzip"), "digest": Digest::of(&self.layer), "size": self.layer.len()}],
        })
    }

    pub(crate) fn layer_path(&self) -> String {
        format!("/v2/app/blobs/{}", Digest::of(&self.layer))
    }

    pub(crate) fn serve(&self, request: &Request) -> Reply {
        if request.path.contains("/manifests/") {
            return reply("200 OK", &[("content-type", OCI_MANIFEST)], &self.manifest);
        }
        match [&self.config, &self.layer]
            .iter()
            .find(|blob| request.path.ends_with(&Digest::of(blob).hex()))
        {
            Some(blob) => match request
                .headers
                .get("range")
                .and_then(|range| range.strip_prefix("bytes="))
            {
                Some(range) => {
                    let from: usize = range.strip_suffix('-').unwrap().parse().unwrap();
                    let content_range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                    reply(
                        "206 Partial Content",
                        &[("content-range", &content_range)],
                        &blob[from..],
                    )
                }
                None => reply("200 OK", &[], blob),
            },
            None => reply("404 Not Found", &[], b""),
        }
    }

    /// The layer announced whole, of which only the first `length` bytes come.
    pub(crate) fn truncated(&self, length: usize) -> Reply {
        let mut whole = reply("200 OK", &[], &self.layer);
        whole
            .bytes
            .truncate(whole.bytes.len() - self.layer.len() + length);
        whole
    }
}
