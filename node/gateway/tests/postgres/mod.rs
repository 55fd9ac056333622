//! A real PostgreSQL server for tests: its own directory, a free port of the loopback interface, an unprivileged user,
//! and an end with the test, however that ends.
#![allow(clippy::disallowed_methods, reason = "tests choose free ports, write files and wait")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Postgres {
    server: Child,
    port: u16,
    user: &'static str,
    _directory: tempfile::TempDir,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Where Debian puts the server's programs, newest first, and then wherever they are.
fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .chain(std::env::var_os("PATH").iter().flat_map(std::env::split_paths))
        .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    found.sort_by_key(|bin| !bin.starts_with("/usr/lib/postgresql"));
    found.into_iter().next().expect(
        "this test needs the programs of a PostgreSQL server: on Debian, `apt-get install postgresql` \
         (it starts a server of its own; none has to run)",
    )
}

/// A server refuses to run as root: then it runs as this user.
fn unprivileged() -> Option<(u32, u32)> {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("a list of users");
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse().ok());
        Some((ids.next()??, ids.next()??))
    })
}

impl Postgres {
    pub fn start() -> Postgres {
        let (bin, as_user) = (programs(), unprivileged());
        let directory = tempfile::Builder::new().prefix("strandline-pg").tempdir().unwrap();
        let user = "strandline";
        if let Some((uid, gid)) = as_user {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = directory.path().join("data");
        let command = |program: &str| {
            let mut command = Command::new(bin.join(program));
            command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
            if let Some((uid, gid)) = as_user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let made = command("initdb")
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", user, "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = command("postgres");
        server
            .args(["-h", "127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-p"])
            .arg(port.to_string())
            .arg("-D")
            .arg(&data)
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap());
        // SAFETY: one system call between fork and exec: the server ends when the test is killed.
        unsafe {
            server.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let server = server.spawn().unwrap();
        let mut postgres = Postgres { server, port, user, _directory: directory };
        postgres.wait();
        postgres
    }

    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (url, log) = (self.url("postgres"), self._directory.path().join("log"));
        while runtime.block_on(tokio_postgres::connect(&url, tokio_postgres::NoTls)).is_err() {
            let log = || std::fs::read_to_string::<&Path>(log.as_ref()).unwrap_or_default();
            if let Ok(Some(status)) = self.server.try_wait() {
                panic!("the server ended with {status}: {}", log());
            }
            assert!(Instant::now() < until, "the server did not answer within 30 s: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://{}@127.0.0.1:{}/{database}", self.user, self.port)
    }

    /// Runs statements in the server's first database.
    pub async fn run(&self, statements: &str) {
        let (client, connection) =
            tokio_postgres::connect(&self.url("postgres"), tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(statements).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }

    /// The URL of a new, empty database.
    pub async fn database(&self, name: &str) -> String {
        self.run(&format!("CREATE DATABASE \"{name}\"")).await;
        self.url(name)
    }
}
