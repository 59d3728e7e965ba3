//! Running the tool in a lab, and reading its answer.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::mounts::Mounts;
use crate::netns::Netns;
use crate::node::Lab;
use crate::programs::{binary, for_everyone};

/// How long the tool may take for one answer before the test fails.
fn limit() -> Duration {
    // A virtual machine without hardware support is some ten times as slow.
    Duration::from_secs(if crate::is_other_kernel() { 300 } else { 60 })
}

/// How long optional reading may take: on a busy machine, more than usual.
const PATIENCE: &str = "30s";

/// One run of the tool, to be described, then run.
#[derive(Debug)]
pub struct Tool<'a> {
    lab: &'a Lab,
    netns: &'a Netns,
    args: Vec<String>,
    env: Vec<(String, String)>,
    uid: Option<u32>,
    door: Vec<String>,
    wrapper: Vec<String>,
}

/// What a run of the tool gave.
#[derive(Debug)]
pub struct Run {
    /// Its standard output as JSON; `Null` when it is none.
    pub json: Value,
    /// The exit status, `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    /// The listeners of a list, with all that they refer to in place of the references.
    rows: Vec<Value>,
    inodes: Vec<u64>,
}

/// A path of an answer, or a listener of a list: any object with `hops`, `end`
/// or the fields of an end.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(pub &'a Value);

impl<'a> Tool<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Self {
        Self {
            lab,
            netns: lab.host(),
            args: Vec::new(),
            env: Vec::new(),
            uid: None,
            door: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// One argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&a| a.to_owned()));
        self
    }

    /// A variable of its environment, for example `DOCKER_HOST`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it as another user, without any capability.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Runs it in another namespace than the lab's host.
    #[must_use]
    pub fn netns(mut self, netns: &'a Netns) -> Self {
        self.netns = netns;
        self
    }

    /// Runs it through a program that starts it: `["unshare", "-pf", "--mount-proc"]`.
    #[must_use]
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&w| w.to_owned()).collect();
        self
    }

    /// Runs it in another mount namespace, which only root may enter: for another
    /// user, go [`Tool::through`] `setpriv`.
    #[must_use]
    pub fn inside(mut self, mounts: &Mounts) -> Self {
        self.door = mounts.door();
        self
    }

    /// The command, with nothing said of its input and output yet.
    ///
    /// # Errors
    /// When the tool is not built and can't be.
    pub fn command(&self) -> Result<Command> {
        let mut binary = binary()?.to_owned();
        if self.uid.is_some() || !self.wrapper.is_empty() {
            binary = for_everyone(&binary)?;
        }
        let binary = binary.to_str().context("path of the tool")?;
        let patience: &[&str] = match self.args.iter().any(|arg| arg == "--timeout") {
            true => &[],
            false => &["--timeout", PATIENCE],
        };
        let argv: Vec<&str> = self
            .door
            .iter()
            .chain(&self.wrapper)
            .map(String::as_str)
            .chain([binary])
            .chain(patience.iter().copied())
            .chain(self.args.iter().map(String::as_str))
            .collect();
        let group = self.lab.cgroup().join("procs");
        let mut command = self.lab.command_in(Some(self.netns), &group, self.uid, &argv)?;
        // What the person running the tests has set must not change the answer.
        for name in ["DOCKER_HOST", "CONTAINER_HOST", "KUBECONFIG", "NO_COLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        Ok(command)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it can't be run, does not end in time, or says `--json` and prints
    /// something else on success.
    pub fn run(&self) -> Result<Run> {
        let wants_json = self.args.iter().any(|a| a == "--json");
        Run::of(self.command()?, wants_json, self.lab.inodes())
    }
}

/// Runs the tool right here, without any lab, for questions that need none.
///
/// # Errors
/// As [`Tool::run`].
pub fn ask(args: &[&str]) -> Result<Run> {
    let mut command = Command::new(binary()?);
    command.args(args).stdin(Stdio::null());
    Run::of(command, args.contains(&"--json"), Vec::new())
}

impl Run {
    /// Runs a command to its end.
    fn of(mut command: Command, wants_json: bool, inodes: Vec<u64>) -> Result<Self> {
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut out = child.stdout.take().context("no output")?;
        let mut err = child.stderr.take().context("no error output")?;
        let reading_out = std::thread::spawn(move || read(&mut out));
        let reading_err = std::thread::spawn(move || read(&mut err));
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > limit() {
                child.kill()?;
                child.wait()?;
                bail!("{command:?} has not ended after {:?}", limit());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = begun.elapsed();
        let stdout = reading_out.join().map_err(|_| anyhow!("reading its output"))??;
        let stderr = reading_err.join().map_err(|_| anyhow!("reading its errors"))??;
        ensure!(!stderr.contains("panicked at"), "the tool panicked: {stderr}");
        let json = serde_json::from_str(&stdout);
        let json = if wants_json && !stdout.is_empty() {
            json.with_context(|| format!("no JSON: {stdout}\n{stderr}"))?
        } else {
            json.unwrap_or(Value::Null)
        };
        let rows = rows(&json)?;
        Ok(Run { json, code: status.code(), stdout, stderr, took, rows, inodes })
    }

    /// The answer to the only question.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn answer(&self) -> Result<&Value> {
        match self.json["answers"].as_array().map(Vec::as_slice) {
            Some([answer]) => Ok(answer),
            _ => {
                Err(anyhow!("not one answer, exit {:?}: {}{}", self.code, self.stdout, self.stderr))
            }
        }
    }

    /// The paths of the only answer that begin in this lab.
    ///
    /// # Errors
    /// As [`Run::answer`].
    pub fn paths(&self) -> Result<Vec<View<'_>>> {
        let paths = self.answer()?["paths"].as_array().context("no paths")?;
        Ok(paths.iter().map(View).filter(|p| self.is_ours(p)).collect())
    }

    /// The paths that begin in `netns`.
    ///
    /// # Errors
    /// As [`Run::answer`].
    pub fn paths_in(&self, netns: &Netns) -> Result<Vec<View<'_>>> {
        Ok(self.paths()?.into_iter().filter(|p| p.netns() == Some(netns.inode)).collect())
    }

    /// The only path that begins in `netns`.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn path_in(&self, netns: &Netns) -> Result<View<'_>> {
        match self.paths_in(netns)?.as_slice() {
            [path] => Ok(*path),
            paths => Err(anyhow!("{} paths, not one: {}", paths.len(), self.stdout)),
        }
    }

    /// The listeners of `list` that are in this lab.
    ///
    /// # Errors
    /// When there are none in the output.
    pub fn listeners(&self) -> Result<Vec<View<'_>>> {
        let has = self.json["listeners"].is_array();
        ensure!(has, "no listeners: {}{}", self.stdout, self.stderr);
        Ok(self.rows.iter().map(View).filter(|l| self.is_ours(l)).collect())
    }

    /// The gaps, of the answers and of the list.
    pub fn gaps(&self) -> Vec<&Value> {
        let answers = self.json["answers"].as_array().into_iter().flatten();
        answers
            .chain([&self.json])
            .filter_map(|holder| holder["gaps"].as_array())
            .flatten()
            .collect()
    }

    /// All text of the gaps, for a test that looks for a word in them.
    pub fn gap_text(&self) -> String {
        self.gaps().iter().map(|gap| format!("{gap}\n")).collect()
    }

    /// Whether the verdict, the gaps and the exit status tell the same story of
    /// a port on which nothing is: "surely nothing", or "not known, for this
    /// could not be read". Other tests' NAT rules may cause the second.
    ///
    /// # Errors
    /// When something was found, or the parts disagree.
    pub fn is_nothing(&self) -> Result<()> {
        let answer = self.answer()?;
        let verdict = answer["verdict"].as_str();
        let hides = self.gaps().iter().any(|gap| gap["impact"] == "port");
        match (verdict, self.code, hides) {
            (Some("not_found"), Some(1), false) | (Some("unknown"), Some(3), true) => Ok(()),
            _ => Err(anyhow!("exit {:?} with {}", self.code, self.stdout)),
        }
    }

    /// Whether the run was a success that found something.
    ///
    /// # Errors
    /// When not.
    pub fn is_found(&self) -> Result<&Self> {
        let found = self.answer()?["verdict"] == "found" && self.code == Some(0);
        ensure!(found, "exit {:?}: {}{}", self.code, self.stdout, self.stderr);
        Ok(self)
    }

    fn is_ours(&self, view: &View<'_>) -> bool {
        view.netns().is_some_and(|inode| self.inodes.contains(&inode))
    }
}

impl<'a> View<'a> {
    /// The inode of its namespace.
    pub fn netns(&self) -> Option<u64> {
        self.0["netns"]["inode"].as_u64()
    }

    /// The hops.
    pub fn hops(&self) -> Vec<&'a Value> {
        self.0["hops"].as_array().into_iter().flatten().collect()
    }

    /// The hops in short: `listener 127.0.0.1:20971/tcp`.
    pub fn steps(&self) -> Vec<String> {
        self.hops()
            .iter()
            .map(|hop| {
                let text = |key: &str| hop[key].as_str().unwrap_or("?").to_owned();
                let port = hop["port"].as_u64().unwrap_or_default();
                let address = match text("address") {
                    v6 if v6.contains(':') => format!("[{v6}]"),
                    other => other,
                };
                format!("{} {address}:{port}/{}", text("kind"), text("proto"))
            })
            .collect()
    }

    /// What is at the end: the path's `end`, or the listener itself.
    pub fn end(&self) -> &'a Value {
        if self.0["end"].is_object() { &self.0["end"] } else { self.0 }
    }

    /// The kind of end.
    pub fn ending(&self) -> &'a str {
        self.end()["ending"].as_str().unwrap_or_default()
    }

    /// The likely acceptor.
    pub fn pid(&self) -> Option<u64> {
        self.end()["process"]["pid"].as_u64()
    }

    /// Every process at the end, in order of their ids.
    pub fn pids(&self) -> Vec<u64> {
        let processes = self.end()["processes"].as_array().into_iter().flatten();
        let mut pids: Vec<u64> = processes.filter_map(|p| p["pid"].as_u64()).collect();
        pids.sort_unstable();
        pids
    }

    /// The innermost container's name.
    pub fn container(&self) -> Option<&'a str> {
        self.end()["container"]["name"].as_str()
    }

    /// The sources of evidence of a hop.
    pub fn sources(&self, hop: usize) -> Vec<&'a str> {
        self.hops()
            .get(hop)
            .and_then(|hop| hop["evidence"].as_array())
            .into_iter()
            .flatten()
            .filter_map(|evidence| evidence["source"].as_str())
            .collect()
    }
}

/// The listeners of a list with the entries of its tables in place of the references to them,
/// so that a row has what the end of a path has.
fn rows(list: &Value) -> Result<Vec<Value>> {
    let entry = |table: &str, at: &Value| -> Result<Value> {
        let place = at.as_u64().and_then(|at| usize::try_from(at).ok()).context("no reference")?;
        let entry = list[table].get(place).with_context(|| format!("no {place} in {table}"))?;
        ensure!(entry["ref"] == *at, "{entry} is at {place}");
        // Where it is depends on all that is listed: it is no part of the row.
        let mut entry = entry.clone();
        entry.as_object_mut().context("no object")?.remove("ref");
        Ok(entry)
    };
    let mut rows = list["listeners"].as_array().cloned().unwrap_or_default();
    for row in &mut rows {
        for (one, table) in [
            ("process", "processes"),
            ("container", "containers"),
            ("pod", "pods"),
            ("cluster", "clusters"),
        ] {
            if row[one].is_object() {
                let whole = entry(table, &row[one]["ref"])?;
                let said = row[one].as_object().into_iter().flatten();
                let mut said = said.filter(|(key, _)| *key != "ref");
                let differs = said.find(|(key, value)| whole[key.as_str()] != **value);
                ensure!(differs.is_none(), "{row} says otherwise than {whole}");
                row[one] = whole;
            }
            if let Some(all) = row[table].as_array() {
                let whole: Result<Vec<Value>> = all.iter().map(|at| entry(table, at)).collect();
                row[table] = Value::Array(whole?);
            }
        }
    }
    Ok(rows)
}

fn read(from: &mut impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
