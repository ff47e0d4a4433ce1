//! LiteLLM as its production guide has it: one Uvicorn worker for a CPU, no debug output, no database. Virtual keys and
//! budgets need Postgres, so there is the master key alone.

use std::process::Command;
use std::time::Duration;

use super::{LITELLM_KEY, Site, listens};
use crate::process::Process;

/// It imports for long.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn start(site: &Site<'_>) -> anyhow::Result<Process> {
    let config = site.home.join("config.yaml");
    let text = format!(
        "\
model_list:
- model_name: smol
  litellm_params: {{model: openai/m, api_base: \"http://127.0.0.1:{}/v1\", api_key: none}}
general_settings: {{master_key: {LITELLM_KEY}, disable_error_logs: true}}
litellm_settings: {{set_verbose: false, telemetry: false, request_timeout: 600}}
",
        site.backend
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(site.installed.join("bin/python"));
    command.arg(site.installed.join("bin/litellm")).arg("--config").arg(config);
    command.args(["--host", "127.0.0.1", "--port", &site.port.to_string(), "--num_workers", "1"]);
    // It is given what it would fetch otherwise, and nothing of this machine's.
    command.env("LITELLM_MODE", "PRODUCTION").env("LITELLM_LOG", "ERROR").env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    command.env("NO_DOCS", "True").env("HOME", site.home).current_dir(site.home);
    for name in ["DATABASE_URL", "REDIS_URL", "REDIS_HOST", "PYTHONPATH", "PYTHONHOME"] {
        command.env_remove(name);
    }
    let mut process = Process::start_detached(&mut command, &site.home.join("litellm.log"))?;
    process.wait_at_most(PATIENCE, "LiteLLM", || listens(site.port))?;
    Ok(process)
}
