//! PostgreSQL: what was committed is there whatever is killed.

use dyno_tests::debian::Debian;
use dyno_tests::host::Host;
use dyno_tests::until;
use rustix::process::{Pid, Signal, kill_process};

const VOLUME: &str = "pgdata:/var/lib/postgresql";

/// Starts the database under this name.
fn serve(host: &Host, image: &str, name: &str) {
    host.ok(&[
        "run",
        "-d",
        "--name",
        name,
        "--restart",
        "always",
        "-v",
        VOLUME,
        "-p",
        "5432:5432",
        "-e",
        "POSTGRES_PASSWORD=secret",
        image,
    ]);
}

/// A client on a network of the host's, as people run it: `psql`, from the same image.
struct Client<'a> {
    host: &'a Host,
    image: &'a str,
    /// `--net` and where the server is from there.
    network: &'a str,
    server: &'a str,
}

impl Client<'_> {
    fn try_sql(&self, sql: &str) -> Result<String, String> {
        let output = self.host.run(&[
            "run",
            "--rm",
            "--net",
            self.network,
            "-e",
            "PGPASSWORD=secret",
            "-e",
            "PGCONNECT_TIMEOUT=5",
            "--user",
            "nobody",
            self.image,
            "psql",
            "-h",
            self.server,
            "-U",
            "postgres",
            "-qtA",
            "-c",
            sql,
        ]);
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)
                .unwrap()
                .trim_end()
                .to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap()
    }

    /// Waits until the server takes queries.
    fn until_ready(&self, why: &str) {
        until(why, || self.try_sql("SELECT 1").is_ok());
    }
}

fn kill_init(host: &Host, dyno: &str) {
    let pid = host.inspect(dyno)["status"]["pid"].as_i64().unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn what_postgresql_committed_outlives_its_dyno_and_hostd() {
    let debian = Debian::prepare();
    let mut host = Host::start();
    let image = debian.serve(host.path()).image_pulled(&host, "postgres");
    serve(&host, &image, "db");
    {
        // By name from a neighbour, by the published port from the machine.
        let neighbour = client(&host, &image, "default", "db.dyno.internal");
        neighbour.until_ready("the new database answers");
        neighbour
            .sql("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)");
        let machine = client(&host, &image, "host", "127.0.0.1");
        assert_eq!(machine.sql("SELECT sum(n) FROM kept"), "500500");
        let who = "stat -c %U /proc/1 /var/lib/postgresql/data";
        let owners = host.ok(&["exec", "db", "sh", "-c", who]);
        assert_eq!(owners, "postgres\npostgres");

        kill_init(&host, "db");
        machine.until_ready("it recovered by itself");
        assert_eq!(machine.sql("SELECT sum(n) FROM kept"), "500500");
        machine.sql("INSERT INTO kept VALUES (1)");
    }
    // hostd and, while it is away, the database.
    let pid = host.inspect("db")["status"]["pid"].as_i64().unwrap();
    host.kill();
    kill_process(
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    host.spawn_again();
    host.until_it_answers();
    client(&host, &image, "host", "127.0.0.1").until_ready("it is back after both were killed");
    let sum =
        |host: &Host| client(host, &image, "host", "127.0.0.1").sql("SELECT sum(n) FROM kept");
    assert_eq!(sum(&host), "500501");

    // Another dyno on the same volume, after the first is gone for good.
    host.ok(&["rm", "-f", "db"]);
    serve(&host, &image, "next");
    let next = client(&host, &image, "default", "next.dyno.internal");
    next.until_ready("the next dyno answers");
    assert_eq!(next.sql("SELECT sum(n) FROM kept"), "500501");
    let wrong = next.try_sql("SELECT 1 FROM nosuchtable").unwrap_err();
    assert!(wrong.contains("nosuchtable"), "{wrong}");
}

fn client<'a>(host: &'a Host, image: &'a str, network: &'a str, server: &'a str) -> Client<'a> {
    Client {
        host,
        image,
        network,
        server,
    }
}
