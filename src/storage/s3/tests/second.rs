//! The store against a second implementation, which shares nothing with the first: what only one server's habits let pass is
//! found here. It is moto, a stand-in of AWS's own behaviour that keeps everything in memory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};

use super::*;

/// Where `cargo xtask test` puts it.
const LIBRARY: &str = "/var/tmp/lifeboat-test-moto";
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks: it only spares the processor.
const PAUSE: Duration = Duration::from_millis(50);
/// Ends with whoever holds the other end of its standard input, however that one ends.
const SERVE: &str = r#"
setpriv --pdeathsig=KILL -- python3 -c 'import sys; from moto.server import main; main(sys.argv[1:])' -H 127.0.0.1 -p "$1" </dev/null >/dev/null 2>&1 &
cat >/dev/null
kill -KILL $!
"#;

struct Second {
    shell: Child,
    address: SocketAddr,
}

impl Second {
    fn start() -> Self {
        assert!(
            std::path::Path::new(LIBRARY).join("moto").is_dir(),
            "there is no moto in {LIBRARY}: `cargo xtask test` installs it"
        );
        // Somebody else may take the port between the two; then the server ends, and another is tried.
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", SERVE, "sh", &free.port().to_string()]).env("PYTHONPATH", LIBRARY);
            let mut second = Self { shell: command.stdin(Stdio::piped()).spawn().unwrap(), address: free };
            if second.answers() {
                return second;
            }
        }
        panic!("moto does not answer");
    }

    fn answers(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            std::thread::sleep(PAUSE);
        }
        false
    }

    fn options(&self, bucket: &str) -> Options {
        reach(&format!("http://{}", self.address), bucket, "some/prefix")
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_says_the_same() {
    let second = Second::start();
    let handle = tokio::runtime::Handle::current();
    // What is held can be held for a shorter time there, which no store may allow: Object Lock is not tested with it.
    for bucket in ["plain", "versioned"] {
        let store = open(second.options(bucket)).await;
        store.client.create_bucket().bucket(bucket).send().await.unwrap();
        if bucket == "versioned" {
            let kept = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
            store.client.put_bucket_versioning().bucket(bucket).versioning_configuration(kept).send().await.unwrap();
        }
        contract::run(&|| Arc::new(tokio::task::block_in_place(|| handle.block_on(open(second.options(bucket))))))
            .await;
    }
}
