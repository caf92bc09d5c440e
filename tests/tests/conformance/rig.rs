//! A bundle as the spec has it, and a runtime to run it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use dyno_tests::{Folder, programs, root, until, write_file};
use serde_json::{Value, json};

/// A container of the runtime under test; killed and deleted when dropped.
pub(crate) struct Container {
    folder: Folder,
    /// `config.json`, to be changed before it is used.
    pub(crate) config: Value,
    id: String,
}

impl Container {
    /// One that runs a shell script as root, with the usual mounts and namespaces.
    pub(crate) fn script(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// One that runs this.
    pub(crate) fn new(args: &[&str]) -> Self {
        dyno_tests::must_be_root();
        let folder = Folder::new();
        std::fs::create_dir(folder.path().join("rootfs")).unwrap();
        root::fill(&folder.path().join("rootfs"));
        let name = folder.path().file_name().unwrap().to_string_lossy();
        let id = name.into_owned();
        let mut config: Value = serde_json::from_str(include_str!("config.json")).unwrap();
        config["process"]["args"] = json!(args);
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        Self { folder, config, id }
    }

    /// A path below the bundle.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Adds to a list of the configuration.
    pub(crate) fn push(&mut self, pointer: &str, value: Value) {
        let list = self.config.pointer_mut(pointer).unwrap();
        list.as_array_mut().unwrap().push(value);
    }

    /// Leaves a namespace out.
    pub(crate) fn without_namespace(&mut self, kind: &str) {
        let list = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
    }

    /// Gives it a user namespace of 65536 ids, and its root to that.
    pub(crate) fn with_user_namespace(&mut self) {
        const BASE: u32 = 0x5100_0000;
        let mapping = json!([{"containerID": 0, "hostID": BASE, "size": 65536}]);
        self.push("/linux/namespaces", json!({"type": "user"}));
        self.config["linux"]["uidMappings"] = mapping.clone();
        self.config["linux"]["gidMappings"] = mapping;
        let mut give = Command::new("chown");
        give.args(["-R", "-h", &format!("{BASE}:{BASE}")]);
        assert!(give.arg(self.path("rootfs")).status().unwrap().success());
    }

    /// The runtime with these arguments.
    pub(crate) fn runtime(&self, args: &[&str]) -> Command {
        let ours = programs().join("dyno-runtime");
        let program = std::env::var_os("RUNTIME_UNDER_TEST").map_or(ours, PathBuf::from);
        let mut command = Command::new(program);
        command.arg("--root").arg(self.path("state")).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Calls the runtime and waits for it.
    pub(crate) fn call(&self, args: &[&str]) -> Output {
        self.runtime(args).output().unwrap()
    }

    /// A command that takes the bundle and the id.
    fn with_bundle(&self, command: &str) -> Command {
        write_file(&self.path("config.json"), &self.config.to_string());
        let bundle = self.folder.path().to_string_lossy().into_owned();
        self.runtime(&[command, "--bundle", &bundle, &self.id])
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Output {
        self.with_bundle("run").output().unwrap()
    }

    /// What it writes, which must succeed.
    pub(crate) fn output(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// That it is refused or fails, by a message that names this.
    pub(crate) fn refused(&self, about: &str) {
        let output = self.run();
        let told = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success(), "{output:?}");
        assert!(told.contains(&about.to_lowercase()), "{told}");
    }

    /// Creates it, its output going to the file `output`.
    pub(crate) fn create(&self) {
        let output = std::fs::File::create(self.path("output")).unwrap();
        let mut create = self.with_bundle("create");
        create.stdout(output.try_clone().unwrap()).stderr(output);
        let status = create.status().unwrap();
        assert!(status.success(), "create: {}", self.told());
    }

    /// Creates and starts it.
    pub(crate) fn start(&self) {
        self.create();
        let start = self.call(&["start", &self.id]);
        assert!(start.status.success(), "{start:?}");
    }

    /// What it has written since [`Container::create`].
    pub(crate) fn told(&self) -> String {
        std::fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    /// What `state` prints.
    pub(crate) fn state(&self) -> Value {
        let state = self.call(&["state", &self.id]);
        assert!(state.status.success(), "{state:?}");
        serde_json::from_slice(&state.stdout).unwrap()
    }

    /// Waits until `state` says this.
    pub(crate) fn await_status(&self, status: &str) {
        until(&format!("it is {status}"), || {
            self.state()["status"] == status
        });
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.call(&["delete", "--force", &self.id]);
    }
}
