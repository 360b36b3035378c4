//! Users of a platform as they are at their own machines: each with a home, a kubeconfig and a token of their own.

use std::path::PathBuf;
use std::process::Command;

use gantry_testkit::{Instance, Output, binary, eventually_some, kubectl_program, run, run_with_input};

use crate::support::SOON;

/// Somebody who can sign in.
pub struct Person {
    /// `DOMAIN/NAME`.
    pub name: String,
    pub password: String,
    home: PathBuf,
}

impl Person {
    /// Makes the user, with a password that is made up.
    #[track_caller]
    pub fn create(gantry: &Instance, name: &str) -> Self {
        let said = gantry.gantry(&["user", "create", name, "--generate-password"]).ok();
        let password = said.lines().last().expect("the password is the last line");
        Self::known(gantry, name, password)
    }

    /// Makes the user and signs in.
    #[track_caller]
    pub fn signed_in(gantry: &Instance, name: &str) -> Self {
        let person = Self::create(gantry, name);
        person.login(gantry, &[]).ok();
        person
    }

    /// A user whom somebody else has made.
    #[track_caller]
    pub fn known(gantry: &Instance, name: &str, password: &str) -> Self {
        let home = gantry.scratch().join(name.replace('/', "-"));
        std::fs::create_dir_all(&home).expect("a folder in our own temporary directory");
        Self { name: name.to_owned(), password: password.trim().to_owned(), home }
    }

    /// `gantry login` with the password by standard input and the instance's authority by file.
    #[track_caller]
    pub fn login(&self, gantry: &Instance, arguments: &[&str]) -> Output {
        let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
        let mut command = self.command(binary("gantry"));
        command.args(["login", &gantry.registry(), "-u", &self.name, "--password-stdin", "--ca", &ca]);
        run_with_input(command.args(arguments), format!("{}\n", self.password).as_bytes())
    }

    /// A program at this person's machine.
    pub fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", &self.home).env("KUBECONFIG", self.kubeconfig());
        command.env("GANTRY_TOKEN_DIR", self.home.join("tokens"));
        command
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.home.join("kubeconfig")
    }

    #[track_caller]
    pub fn gantry(&self, arguments: &[&str]) -> Output {
        run(self.command(binary("gantry")).args(arguments))
    }

    /// kubectl, which asks `gantry token` for the token.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(kubectl_program());
        command.arg("--cache-dir").arg(self.home.join("kubectl-cache")).args(arguments);
        command
    }

    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        run(&mut self.kubectl_command(arguments))
    }

    /// `kubectl create -f -`.
    #[track_caller]
    pub fn make(&self, manifest: &serde_json::Value) -> Output {
        let manifest = manifest.to_string();
        run_with_input(&mut self.kubectl_command(&["create", "-f", "-"]), manifest.as_bytes())
    }

    /// Makes the pod in a namespace of theirs, as soon as their rights and the namespace are there, and comes back when
    /// it is ready.
    #[track_caller]
    pub fn run_pod(&self, namespace: &str, mut pod: serde_json::Value) {
        pod["metadata"]["namespace"] = namespace.into();
        eventually_some("the pod is made", SOON, || {
            let out = self.make(&pod);
            if out.succeeded() { Ok(()) } else { Err(out.stderr) }
        });
        let pod = format!("pod/{}", pod["metadata"]["name"].as_str().expect("a name"));
        self.kubectl(&["wait", "-n", namespace, "--for=condition=Ready", &pod, "--timeout=60s"]).ok();
    }
}
