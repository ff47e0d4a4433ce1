//! What is disturbed, in which order.

use tollgate_tests::soak::backend::Port;

use super::Run;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    LeaderKilled,
    OtherKilled,
    ControlPlaneRolled,
    ProxyDeleted,
    OtherCa,
    ApiServerKilled,
    KeyRotated,
    CredentialRotated,
    RouteChanged,
    PoolChanged,
    PolicyChanged,
    FlakyRestarted,
    SteadyRestarted,
    ProxyKilled,
}

// === impl Disturbance ===

impl Disturbance {
    /// In their order. After the last one the budgets are compared, which takes longest.
    pub const ALL: [Self; 14] = [
        Self::LeaderKilled,
        Self::KeyRotated,
        Self::OtherKilled,
        Self::CredentialRotated,
        Self::ControlPlaneRolled,
        Self::RouteChanged,
        Self::ProxyDeleted,
        Self::PoolChanged,
        Self::OtherCa,
        Self::FlakyRestarted,
        Self::ApiServerKilled,
        Self::SteadyRestarted,
        Self::PolicyChanged,
        Self::ProxyKilled,
    ];

    /// Those by which no process of ours ends.
    pub const GENTLE: [Self; 8] = [
        Self::KeyRotated,
        Self::CredentialRotated,
        Self::RouteChanged,
        Self::PoolChanged,
        Self::FlakyRestarted,
        Self::ApiServerKilled,
        Self::SteadyRestarted,
        Self::PolicyChanged,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::LeaderKilled => "the leading control plane is killed",
            Self::OtherKilled => "the other control plane is killed",
            Self::ControlPlaneRolled => "the control plane is rolled out anew",
            Self::ProxyDeleted => "a proxy's Pod is deleted",
            Self::OtherCa => "the CA is another",
            Self::ApiServerKilled => "the API server is killed",
            Self::KeyRotated => "a consumer's key is rotated",
            Self::CredentialRotated => "the backends' credential is rotated",
            Self::RouteChanged => "a route is changed",
            Self::PoolChanged => "the pool is changed",
            Self::PolicyChanged => "a policy is changed",
            Self::FlakyRestarted => "the first backend is killed",
            Self::SteadyRestarted => "the second backend is killed",
            Self::ProxyKilled => "a proxy's Envoy is killed",
        }
    }

    /// Returns when all is well again.
    pub async fn happens(self, run: &mut Run) -> anyhow::Result<()> {
        match self {
            Self::LeaderKilled => run.leader_is_killed().await,
            Self::OtherKilled => run.other_is_killed().await,
            Self::ControlPlaneRolled => run.control_plane_is_rolled().await,
            Self::ProxyDeleted => run.proxy_is_deleted().await,
            Self::OtherCa => run.ca_is_another().await,
            Self::ApiServerKilled => run.api_server_is_killed().await,
            Self::KeyRotated => run.key_is_rotated().await,
            Self::CredentialRotated => run.credential_is_rotated().await,
            Self::RouteChanged => run.route_is_changed().await,
            Self::PoolChanged => run.pool_is_changed().await,
            Self::PolicyChanged => run.policy_is_changed().await,
            Self::FlakyRestarted => run.backend_is_killed(Port::Flaky).await,
            Self::SteadyRestarted => run.backend_is_killed(Port::Steady).await,
            Self::ProxyKilled => run.proxy_is_killed().await,
        }
    }
}
