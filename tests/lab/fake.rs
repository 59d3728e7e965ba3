//! Docker daemons that no real one would be: dumb, babbling or hostile.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A socket on which something other than Docker answers, as long as the test
/// process lives.
#[derive(Debug)]
pub struct FakeDocker {
    path: PathBuf,
}

impl FakeDocker {
    /// Accepts, and never says anything.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn silent(dir: &Path) -> Result<Self> {
        let mut held = Vec::new();
        Self::serve(dir, "silent.sock", move |stream| held.push(stream))
    }

    /// Answers everything with bytes that are not HTTP.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn garbage(dir: &Path) -> Result<Self> {
        Self::serve(dir, "garbage.sock", |mut stream| {
            // The tool may have closed it in disgust; that is what is tested.
            let _closed = stream.write_all(b"\x00\xff\xfeHTTP/9.9 -1 \x1b[2J\r\n\r\n{{{{");
        })
    }

    /// Says that there is one container, and what `container` says of it.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn with(dir: &Path, container: &FakeContainer<'_>) -> Result<Self> {
        let (list, inspect) = (container.list().to_string(), container.inspect().to_string());
        Self::serve(dir, "docker.sock", move |stream| {
            let _closed = answer(stream, &list, &inspect);
        })
    }

    /// What `DOCKER_HOST` should say.
    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn serve(
        dir: &Path,
        name: &str,
        mut handle: impl FnMut(UnixStream) + Send + 'static,
    ) -> Result<Self> {
        let path = dir.join(name);
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        std::thread::spawn(move || listener.incoming().flatten().for_each(&mut handle));
        Ok(Self { path })
    }
}

/// What a fake daemon says of its only container.
#[derive(Debug)]
pub struct FakeContainer<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// How many labels it has, and how long each is.
    pub labels: (usize, usize),
    /// Its first process.
    pub pid: u32,
}

impl FakeContainer<'_> {
    fn labels(&self) -> Value {
        let (count, length) = self.labels;
        let value = "x".repeat(length);
        (0..count).map(|n| (format!("label{n}"), Value::from(value.clone()))).collect()
    }

    fn list(&self) -> Value {
        json!([{
            "Id": self.id, "Names": [format!("/{}", self.name)], "Image": self.name,
            "ImageID": "sha256:00", "Command": self.name, "Created": 1, "Ports": [],
            "Labels": self.labels(), "State": "running", "Status": "Up",
            "HostConfig": { "NetworkMode": "host" },
            "NetworkSettings": { "Networks": {} }, "Mounts": []
        }])
    }

    fn inspect(&self) -> Value {
        json!({
            "Id": self.id, "Name": format!("/{}", self.name), "Image": "sha256:00",
            "Created": "2026-01-01T00:00:00Z", "Path": "x", "Args": [],
            "State": { "Status": "running", "Running": true, "Pid": self.pid },
            "Config": { "Image": self.name, "Labels": self.labels() },
            "HostConfig": { "NetworkMode": "host" },
            "NetworkSettings": { "Networks": {}, "Ports": {} }, "Mounts": []
        })
    }
}

fn answer(stream: UnixStream, list: &str, inspect: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let (status, body) = if path.ends_with("/containers/json") {
        ("200 OK", list)
    } else if path.contains("/containers/") && path.ends_with("/json") {
        ("200 OK", inspect)
    } else if path.ends_with("/_ping") {
        ("200 OK", "OK")
    } else if path.ends_with("/version") {
        ("200 OK", r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#)
    } else {
        ("404 Not Found", r#"{"message":"page not found"}"#)
    };
    let mut stream = reader.into_inner();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nApi-Version: 1.41\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
