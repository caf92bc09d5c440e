//! A small web service to run as a dyno: it says who answers.
//!
//! ```text
//! web [PORT]              serve
//! web get NAME:PORT PATH  ask another one, found by its name
//! ```
//!
//! `GET /` greets, `GET /crash` ends the process, anything else is a 404. There
//! is nothing of dyno in here: it is a program like any other.
#![expect(clippy::print_stdout, reason = "its output is its log")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => serve("8080"),
        ["get", address, path] => get(address, path),
        [port] => serve(port),
        _ => Err(io::Error::other(
            "usage: web [PORT] | web get NAME:PORT PATH",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("web: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &str) -> io::Result<()> {
    let port = port.parse().map_err(io::Error::other)?;
    // Of both families, where the machine has both.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_no_ipv6| TcpListener::bind(("0.0.0.0", port)))?;
    let name = host_name()?;
    println!("{name} listens on port {port}");
    for stream in listener.incoming() {
        // A client that goes away in the middle is its own loss.
        if let Err(error) = stream.and_then(|stream| answer(stream, &name)) {
            eprintln!("{name}: {error}");
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // The whole head: closing with unread bytes would reset the connection.
    let lines = BufReader::new(&stream).take(8192).lines();
    let head: Vec<String> = lines
        .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
        .collect::<io::Result<_>>()?;
    let path = head
        .first()
        .and_then(|request| request.split(' ').nth(1))
        .unwrap_or("/");
    println!("GET {path} from {}", stream.peer_addr()?.ip());
    let (status, body) = match path {
        "/" => ("200 OK", format!("hello from {name}\n")),
        "/crash" => {
            eprintln!("{name}: asked to crash");
            std::process::abort();
        }
        _ => ("404 Not Found", "no such page\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
    )
}

fn get(address: &str, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map_or(answer.as_str(), |(_, body)| body);
    print!("{body}");
    io::stdout().flush()
}

fn host_name() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?
        .trim()
        .to_owned())
}
