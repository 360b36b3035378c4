//! The demo: a small HTTP server that says who it is, so that a person sees scaling, rolling and
//! configuration at work. Standard library only, to pack into a small image.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const REQUEST_LINE_BYTES_MAX: u64 = 8 * 1024;

struct Hello {
    greeting: String,
    version: String,
    host: String,
    served: AtomicU64,
}

fn main() -> std::io::Result<()> {
    let port = variable("PORT", "8080");
    let hello = Arc::new(Hello {
        greeting: variable("GREETING", "Hello"),
        version: variable("VERSION", "1"),
        host: std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned(),
        served: AtomicU64::new(0),
    });
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!("hello: version {} listens on port {port}", hello.version);
    for connection in listener.incoming() {
        let hello = hello.clone();
        std::thread::spawn(move || connection.and_then(|stream| hello.answer(stream)));
    }
    Ok(())
}

impl Hello {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = BufReader::new(std::io::Read::take(&stream, REQUEST_LINE_BYTES_MAX));
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = request.split_whitespace().nth(1).unwrap_or("/");
        let (status, body) = self.page(path);
        if path != "/healthz" {
            println!("hello: {} {status}", request.trim());
        }
        write!(
            &stream,
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn page(&self, path: &str) -> (&'static str, String) {
        match path {
            "/" => {
                let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
                (
                    "200 OK",
                    format!(
                        "{} from {} (version {}, request {served})\n",
                        self.greeting, self.host, self.version
                    ),
                )
            }
            "/healthz" => ("200 OK", "ok\n".to_owned()),
            _ => ("404 Not Found", format!("nothing at {path}\n")),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a demo reads its configuration from the environment")]
fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}
