//! Root asks for a user behind sudo: what the user could have written runs no program, and
//! sends away no file that is not the user's.

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use lab::apiserver::{ApiServer, node, service, slice, write};
use lab::{Lab, Run, Test};
use serde_json::{Value, json};

/// The user who called sudo.
const ANN: u32 = 4243;

/// A user's home with a kubeconfig in it, an API that it names, and a port that nobody has.
struct Sudo {
    lab: Lab,
    api: ApiServer,
    home: PathBuf,
    /// What the user's program would leave behind.
    ran: PathBuf,
    port: u16,
}

impl Sudo {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let port = lab::unused_port()?;
        let api = ApiServer::start(
            Some(lab.host()),
            &lab::apiserver::Objects {
                services: vec![service("web", "shop", port)],
                slices: vec![slice("web", "shop", &["10.244.0.5"])],
                pods: Vec::new(),
                nodes: vec![node("node-1", "192.0.2.77")],
            },
        )?;
        let home = lab.dir().join("ann");
        std::fs::create_dir_all(home.join(".kube"))?;
        let ran = home.join("ran");
        let program = home.join("program");
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": lab::apiserver::TOKEN},
        });
        let script = format!("#!/bin/sh\nid > {}\necho '{credential}'\n", ran.display());
        std::fs::write(&program, script)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        let sudo = Self { lab, api, home, ran, port };
        sudo.write(&sudo.with_program())?;
        for path in ["", ".kube", "program"] {
            chown(sudo.home.join(path), Some(ANN), None)?;
        }
        Ok(sudo)
    }

    fn config(&self) -> PathBuf {
        self.home.join(".kube/config")
    }

    fn with_program(&self) -> Value {
        json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
            "command": self.home.join("program"),
        }})
    }

    /// Writes the user's kubeconfig anew.
    fn write(&self, user: &Value) -> Result<()> {
        let mut config = self.api.kubeconfig("ann");
        config["users"][0]["user"] = user.clone();
        let written = write(self.lab.dir(), "ann", &config)?;
        let _ = std::fs::remove_file(self.config());
        std::fs::copy(written, self.config())?;
        chown(self.config(), Some(ANN), None)?;
        Ok(())
    }

    /// What sudo would start, where the file system is made by `script`.
    fn ask_where(&self, script: &str, options: &[&str]) -> Result<Run> {
        let passwd = self.lab.dir().join("passwd");
        let mut users = std::fs::read_to_string("/etc/passwd")?;
        users.push_str(&format!("ann:x:{ANN}:{ANN}::{}:/bin/sh\n", self.home.display()));
        std::fs::write(&passwd, users)?;
        let mounts =
            self.lab.mounts(&format!("mount --bind {} /etc/passwd\n{script}", passwd.display()))?;
        let tool = self.lab.tool().inside(&mounts);
        let tool = tool.env("HOME", "/nowhere").env("SUDO_USER", "ann");
        let tool = tool.env("SUDO_UID", &ANN.to_string()).args(&["--json"]).args(options);
        tool.arg(&self.port.to_string()).run()
    }

    fn ask(&self, options: &[&str]) -> Result<Run> {
        self.ask_where("", options)
    }

    /// Whether the program was not run, and no request sent, and why is said.
    fn nothing_ran(&self, run: &Run, why: &str) -> Test {
        ensure!(!self.ran.exists(), "it ran: {}", std::fs::read_to_string(&self.ran)?);
        ensure!(self.api.asked().is_empty(), "asked: {:?}", self.api.asked());
        let said = format!("{}{}", run.stderr, run.gap_text());
        ensure!(said.contains(why), "nothing says {why:?}: {said}");
        Ok(())
    }
}

#[test]
fn the_users_own_kubeconfig_is_used_but_its_program_is_not_run() -> Test {
    lab::root_or_skip!();
    let sudo = Sudo::new()?;
    for options in [&["--context", "ann"][..], &["--context", "ann", "--kube-exec"]] {
        sudo.nothing_ran(
            &sudo.ask(options)?,
            "programs that another user's file names are not run",
        )?;
    }
    // Nor is the one that it names in the old way.
    let provider = json!({"name": "gcp", "config": {"cmd-path": sudo.home.join("program")}});
    sudo.write(&json!({"auth-provider": provider}))?;
    sudo.nothing_ran(&sudo.ask(&["--context", "ann"])?, "auth-provider")?;
    // With a token it is asked as for the user.
    sudo.write(&json!({"token": lab::apiserver::TOKEN}))?;
    let run = sudo.ask(&["--context", "ann"])?;
    ensure!(run.stdout.contains("Service web/shop has NodePort"), "{}", run.stdout);
    Ok(())
}

/// Root's file under the user's name: root's is the file, the user's may be the content.
#[test]
fn links_to_files_of_root_make_no_kubeconfig_of_roots() -> Test {
    lab::root_or_skip!();
    let sudo = Sudo::new()?;
    let roots = sudo.lab.dir().join("roots");
    std::fs::copy(sudo.config(), &roots)?;
    let options = ["--context", "ann", "--kube-exec"];
    let again = |make: &dyn Fn(&Path) -> Result<()>, why: &str| -> Test {
        std::fs::remove_file(sudo.config())?;
        make(&sudo.config())?;
        sudo.nothing_ran(&sudo.ask(&options)?, why)
    };
    again(&|config| Ok(symlink(&roots, config)?), "is a link")?;
    again(&|config| Ok(std::fs::hard_link(&roots, config)?), "hard links")?;
    // Root's own file that the user has moved.
    std::fs::remove_file(sudo.config())?;
    std::fs::rename(&roots, sudo.config())?;
    sudo.nothing_ran(&sudo.ask(&options)?, "not run")?;
    Ok(())
}

#[test]
fn what_others_can_write_is_not_read_for_root() -> Test {
    lab::root_or_skip!();
    let sudo = Sudo::new()?;
    let options = ["--context", "ann", "--kube-exec"];
    for (path, mode, before) in [(".kube", 0o777, 0o755), (".kube/config", 0o666, 0o644)] {
        let path = sudo.home.join(path);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        sudo.nothing_ran(&sudo.ask(&options)?, "can be written by others")?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(before))?;
    }
    // Another user's file in the home.
    chown(sudo.config(), Some(ANN + 1), None)?;
    sudo.nothing_ran(&sudo.ask(&options)?, "several users")
}

/// A file system that somebody else serves can claim any owner: nothing on it is looked at.
#[test]
fn only_local_file_systems_are_read_for_root() -> Test {
    lab::root_or_skip!();
    let sudo = Sudo::new()?;
    let options = ["--context", "ann", "--kube-exec"];
    let config = sudo.config();
    let kernels = format!("mount --bind /proc/self/cmdline {}", config.display());
    sudo.nothing_ran(&sudo.ask_where(&kernels, &options)?, "no local file system")?;
    let dir = config.parent().unwrap_or(Path::new("/"));
    let whole = format!("mount -t proc proc {}", dir.display());
    sudo.nothing_ran(&sudo.ask_where(&whole, &options)?, "no local file system")
}

#[test]
fn a_kubeconfig_of_the_user_names_no_file_of_root() -> Test {
    lab::root_or_skip!();
    let sudo = Sudo::new()?;
    let secret = sudo.lab.dir().join("secret");
    std::fs::write(&secret, lab::apiserver::TOKEN)?;
    let link = sudo.home.join("link");
    symlink(&secret, &link)?;
    let hard = sudo.home.join("hard");
    std::fs::hard_link(&secret, &hard)?;
    for (file, why) in
        [(&secret, "owns the kubeconfig"), (&link, "is a link"), (&hard, "hard links")]
    {
        sudo.write(&json!({"tokenFile": file}))?;
        sudo.nothing_ran(&sudo.ask(&["--context", "ann"])?, why)?;
    }
    let own = sudo.home.join("token");
    std::fs::write(&own, lab::apiserver::TOKEN)?;
    chown(&own, Some(ANN), None)?;
    sudo.write(&json!({"tokenFile": own}))?;
    let run = sudo.ask(&["--context", "ann"])?;
    ensure!(run.stdout.contains("Service web/shop has NodePort"), "{}", run.stdout);
    Ok(())
}
