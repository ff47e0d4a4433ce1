//! Where the configuration comes from: `-f DIR`, or `--source kubernetes` and which cluster that is.

use std::path::{Path, PathBuf};

use clap::ArgGroup;
use tollgate_core::objects::is_dns_label;

use super::stages::Duties;
use crate::leader::Election;
use crate::source::Source;
use crate::source::kubernetes::Access;

/// The name of the source that is no folder.
const KUBERNETES: &str = "kubernetes";

#[derive(Debug, Clone, clap::Args)]
#[command(group = ArgGroup::new("from").required(true).args(["file", "source"]))]
pub struct Sources {
    /// Folder with the configuration (*.yaml, *.yml, *.json)
    #[arg(short, long, value_name = "DIR")]
    file: Option<PathBuf>,
    /// `kubernetes`, or a folder as with -f
    #[arg(long, value_name = "kubernetes|DIR")]
    source: Option<PathBuf>,
    /// kubeconfig of the cluster [default: KUBECONFIG, else ~/.kube/config, else the service account of the pod]
    #[arg(long, value_name = "PATH", requires = "source", help_heading = HEADING)]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "source", help_heading = HEADING)]
    kube_context: Option<String>,
    /// Only the objects of this namespace; may be given several times. GatewayClasses and Namespaces belong to no
    /// namespace: where they may not be read, it is as in files, the class `tollgate` is ours and no Namespace has labels
    #[arg(long = "namespace", value_name = "NAME", value_parser = namespace, requires = "source", help_heading = HEADING)]
    namespaces: Vec<String>,
}

pub const HEADING: &str = "With --source kubernetes";

/// These are for a cluster, and the source is a folder.
#[derive(Debug, thiserror::Error)]
#[error(
    "--kubeconfig, --kube-context, --namespace and --write-status are for --source kubernetes, and {0} is a folder"
)]
pub struct NotOfACluster(String);

// === impl Sources ===

impl Sources {
    /// # Errors
    /// When options of a cluster are given with a folder.
    pub fn get(&self) -> Result<Source, NotOfACluster> {
        let path = self.path();
        if path == Path::new(KUBERNETES) && self.file.is_none() {
            return Ok(Source::Kubernetes(Access {
                kubeconfig: self.kubeconfig.clone(),
                context: self.kube_context.clone(),
                namespaces: self.namespaces.clone(),
                ..Access::default()
            }));
        }
        if self.kubeconfig.is_some() || self.kube_context.is_some() || !self.namespaces.is_empty() {
            return Err(NotOfACluster(path.display().to_string()));
        }
        Ok(Source::Folder(path.to_owned()))
    }

    /// Statuses are written into the cluster that the objects are from. A folder has no place for them.
    ///
    /// # Errors
    /// When the source is a folder.
    pub fn writing(&self, election: Election) -> Result<Duties, NotOfACluster> {
        match self.get()? {
            Source::Kubernetes(access) => {
                Ok(Duties { access, election, statuses: true, proxies: None, signing: None, envoy_filters: None })
            }
            Source::Folder(path) => Err(NotOfACluster(path.display().to_string())),
        }
    }

    /// What names the source, for the name of its state directory. Each context of kubeconfigs has a state of its own.
    pub fn name(&self) -> PathBuf {
        match &self.kube_context {
            Some(context) if self.file.is_none() => PathBuf::from(format!("{}-{context}", self.path().display())),
            _ => self.path().to_owned(),
        }
    }

    /// clap has seen that one of both is there.
    fn path(&self) -> &Path {
        self.file.as_deref().or(self.source.as_deref()).unwrap_or(Path::new("."))
    }
}

fn namespace(text: &str) -> Result<String, &'static str> {
    if is_dns_label(text) {
        Ok(text.to_owned())
    } else {
        Err("no name of a namespace: lowercase letters, digits and -")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        sources: Sources,
    }

    fn get(args: &[&str]) -> Result<Source, String> {
        let args = ["tollgate"].iter().chain(args);
        let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        cli.sources.get().map_err(|error| error.to_string())
    }

    #[test]
    fn a_source_is_a_folder_or_a_cluster() {
        for args in [["-f", "kubernetes"], ["--source", "./kubernetes"], ["--source", "conf"]] {
            assert!(matches!(get(&args), Ok(Source::Folder(path)) if args[1] == path.to_str().unwrap()), "{args:?}");
        }
        let args = ["--source", "kubernetes", "--kube-context", "c", "--namespace", "a", "--namespace", "b"];
        let Ok(Source::Kubernetes(access)) = get(&args) else { panic!("{args:?}") };
        assert_eq!(
            (access.context.as_deref(), access.namespaces.as_slice()),
            (Some("c"), &["a".into(), "b".into()][..])
        );
    }

    #[test]
    fn statuses_are_written_into_a_cluster_only() {
        let writing = |source: &str| {
            let cli = Cli::try_parse_from(["tollgate", "--source", source]).unwrap();
            cli.sources.writing(Election::Always)
        };
        assert!(matches!(writing("kubernetes"), Ok(Duties { election: Election::Always, statuses: true, .. })));
        assert!(writing("conf").unwrap_err().to_string().contains("conf is a folder"));
    }

    #[test]
    fn exactly_one_of_both_is_given_and_options_of_a_cluster_go_with_a_cluster() {
        for (args, expected) in [
            (&[][..], "<--file <DIR>|--source <kubernetes|DIR>>"),
            (&["-f", "a", "--source", "kubernetes"], "cannot be used with"),
            (&["-f", "a", "--namespace", "b"], "a is a folder"),
            (&["--source", "a", "--kube-context", "b"], "a is a folder"),
            (&["--source", "kubernetes", "--namespace", "A/b"], "no name of a namespace"),
        ] {
            let error = get(args).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }
}
