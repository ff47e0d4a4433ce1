//! Fields of LiteLLM's configuration that are known and have no place in our objects. One that is in no table here, and
//! understood nowhere else, is listed as unknown.

use crate::status::Severity;

/// Fields of which the same is to be said.
pub(super) struct Group {
    pub(super) severity: Severity,
    pub(super) message: &'static str,
    pub(super) hint: &'static str,
    /// Their names, with spaces between them.
    fields: &'static str,
}

/// LiteLLM does something that is not done here.
const fn lost(message: &'static str, hint: &'static str, fields: &'static str) -> Group {
    Group { severity: Severity::Error, message, hint, fields }
}

/// It is done in another way, or it is about LiteLLM itself.
const fn told(message: &'static str, hint: &'static str, fields: &'static str) -> Group {
    Group { severity: Severity::Warning, message, hint, fields }
}

// === impl Group ===

impl Group {
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.split_ascii_whitespace().any(|known| known == field)
    }
}

/// The top of the file.
pub(super) const ROOT: &[Group] = &[
    lost("other files are not read", "import them one by one, or put them together", "include"),
    lost(
        "there is nothing like it here",
        "Envoy's filters (ext_authz, ext_proc) stand beside ours",
        "\
        guardrails policies policy_attachments prompts mcp_servers mcp_tools search_tools \
        vector_store_registry agent_list pass_through_endpoints callback_settings finetune_settings \
        files_settings assistant_settings",
    ),
    lost(
        "there are no budgets in money",
        "limits of a TokenPolicy are in tokens; tollgate usage has what was used",
        "pricing custom_pricing",
    ),
];

/// An entry of `model_list`.
pub(super) const ENTRY: &[Group] = &[];

/// `model_info`.
pub(super) const MODEL_INFO: &[Group] = &[
    told(
        "what is noted of a model is not kept",
        "",
        "\
        id mode base_model description version supports_function_calling supports_vision \
        supports_system_messages supports_response_schema supports_tool_choice supports_reasoning \
        supports_prompt_caching supports_parallel_function_calling supports_audio_input \
        supports_audio_output supports_pdf_input supports_web_search max_tokens max_input_tokens \
        max_output_tokens output_vector_size litellm_provider db_model created_at updated_at created_by \
        updated_by health_check_model health_check_timeout disable_background_health_check",
    ),
    lost(
        "there are no budgets in money",
        "limits of a TokenPolicy are in tokens; tollgate usage has what was used",
        "\
        input_cost_per_token output_cost_per_token input_cost_per_second output_cost_per_second \
        input_cost_per_image cache_read_input_token_cost cache_creation_input_token_cost",
    ),
    lost("the model is for one team only", "models of a Consumer say who may use it", "team_id team_public_model_name"),
    lost(
        "no target is left alone after failures",
        "each request tries the targets in order; an InferencePool or Service has health of its own",
        "cooldown_time",
    ),
];

/// `litellm_params`.
pub(super) const PARAMS: &[Group] = &[
    lost(
        "requests are not changed, but for the model's name",
        "clients send it",
        "\
        temperature top_p max_tokens max_completion_tokens n stop seed presence_penalty frequency_penalty \
        logit_bias user response_format tools tool_choice functions function_call thinking reasoning_effort \
        extra_body allowed_openai_params additional_drop_params drop_params modify_params metadata \
        cache_control_injection_points input_type dimensions encoding_format num_ctx keep_alive \
        safety_settings system_message prompt_id merge_reasoning_content_in_choices service_tier store",
    ),
    lost(
        "no headers are added for one backend",
        "RequestHeaderModifier of the HTTPRoute adds them for all",
        "extra_headers headers default_headers",
    ),
    lost("no header for an organization is sent", "a key of a project belongs to one organization", "organization"),
    lost(
        "there are no budgets in money",
        "limits of a TokenPolicy are in tokens; tollgate usage has what was used",
        "\
        input_cost_per_token output_cost_per_token input_cost_per_second output_cost_per_second \
        cache_read_input_token_cost cache_creation_input_token_cost max_budget budget_duration",
    ),
    lost(
        "credentials of clouds are not made",
        "a ModelBackend has one key",
        "\
        aws_access_key_id aws_secret_access_key aws_session_token aws_region_name aws_role_name \
        aws_session_name aws_profile_name vertex_project vertex_location vertex_credentials azure_ad_token \
        azure_ad_token_provider tenant_id client_id client_secret azure_username azure_password azure_scope",
    ),
    lost("targets are not chosen by tags", "a ModelPool and HTTPRoute for each tag", "tags tag_regex"),
    lost("answers are not made up", "", "mock_response mock_timeout"),
    lost(
        "no target is left alone after failures",
        "each request tries the targets in order",
        "cooldown_time allowed_fails",
    ),
    lost(
        "no backend has a limit of its own",
        "a TokenPolicy holds callers to tokens",
        "max_parallel_requests itpm otpm default_api_key_tpm_limit default_api_key_rpm_limit",
    ),
    lost(
        "not taken",
        "spec.tls.caRef of the ModelBackend names who signs its certificate",
        "ssl_verify ssl_certificate",
    ),
    lost(
        "there is nothing like it here",
        "",
        "\
        configurable_clientside_auth_params use_in_pass_through use_litellm_proxy use_chat_completions_api \
        timeout_by_service_tier stream_timeout_by_service_tier model_info fallbacks context_window_fallbacks",
    ),
    lost(
        "no model is chosen by what a request says",
        "",
        "\
        auto_router_config_path auto_router_config auto_router_default_model auto_router_embedding_model \
        complexity_router_config complexity_router_default_model",
    ),
    told("what is noted of a model is not kept", "", "input_cost_per_image output_cost_per_image litellm_trace_id"),
];

/// `router_settings`.
pub(super) const ROUTER: &[Group] = &[
    lost(
        "no other model is tried for what an error says",
        "fallbacks after connection errors, 429 and 5xx hold",
        "context_window_fallbacks content_policy_fallbacks",
    ),
    lost(
        "no target is left alone after failures",
        "each request tries the targets in order; an InferencePool or Service has health of its own",
        "allowed_fails allowed_fails_policy cooldown_time",
    ),
    told("no target is left alone after failures here either", "", "disable_cooldowns"),
    lost(
        "retries do not depend on the error",
        "spec.models[].retries: after connection errors, resets, 429 and 5xx",
        "retry_policy model_group_retry_policy",
    ),
    told("the next attempt is made at once", "", "retry_after"),
    lost("requests are not looked at for the size of a context", "", "enable_pre_call_checks optional_pre_call_checks"),
    lost(
        "targets are not chosen by tags",
        "a ModelPool and HTTPRoute for each tag",
        "enable_tag_filtering tag_filtering_match_any",
    ),
    lost(
        "there is nothing like it here",
        "targets are drawn by their weights",
        "\
        routing_strategy_args routing_groups provider_budget_config model_group_budgets \
        deployment_affinity_ttl_seconds enable_weighted_failover",
    ),
    told(
        "no Redis is needed for routing: proxies hold leases of the ledger",
        "",
        "\
        redis_host redis_port redis_password redis_url redis_db redis_ssl cache_kwargs caching_groups \
        cache_responses client_ttl redis_cluster",
    ),
    lost(
        "no backend has a limit or parameters of its own",
        "a TokenPolicy holds callers to tokens",
        "default_max_parallel_requests default_litellm_params",
    ),
    told("it is about LiteLLM itself", "", "set_verbose debug_level polling_interval ignore_invalid_deployments"),
];

/// `litellm_settings`.
pub(super) const LITELLM: &[Group] = &[
    lost(
        "answers are not kept for later requests",
        "affinity: PromptPrefix of a model uses the prefix caches of runners",
        "\
        cache cache_params enable_caching_on_provider_specific_optional_params \
        disable_add_transform_inline_image_block",
    ),
    lost(
        "LiteLLM's callbacks are not called",
        "tollgate usage and Prometheus metrics have the tokens; Envoy's access log and tracing have the requests",
        "\
        callbacks success_callback failure_callback service_callback service_callbacks audit_log_callbacks \
        post_call_rules pre_call_rules input_callback",
    ),
    lost(
        "no other model is tried for what an error says",
        "fallbacks after connection errors, 429 and 5xx hold",
        "context_window_fallbacks content_policy_fallbacks",
    ),
    lost(
        "no target is left alone after failures",
        "each request tries the targets in order",
        "allowed_fails cooldown_time",
    ),
    lost(
        "requests are not changed, but for the model's name",
        "a backend answers 400 for what it does not know",
        "drop_params modify_params additional_drop_params",
    ),
    lost(
        "there are no budgets in money",
        "limits of a TokenPolicy are in tokens; tollgate usage has what was used",
        "\
        max_budget budget_duration max_internal_user_budget internal_user_budget_duration \
        max_end_user_budget max_end_user_budget_id default_team_params default_internal_user_params \
        default_key_generate_params upperbound_key_generate_params max_user_budget",
    ),
    lost(
        "there is nothing like it here",
        "",
        "\
        guardrails default_team_settings model_alias_map tag_budget_config priority_reservation \
        priority_reservation_settings max_ui_session_budget custom_provider_map \
        forward_traceparent_to_llm_provider forward_client_headers_to_llm_api enable_azure_ad_token_refresh \
        mcp_aliases public_model_groups key_generation_settings ssl_verify ssl_certificate",
    ),
    lost("requests are not looked at for the size of a context", "", "enable_pre_call_checks check_provider_endpoint"),
    told(
        "it is about LiteLLM itself",
        "",
        "\
        set_verbose json_logs turn_off_message_logging redact_messages_in_exceptions \
        redact_user_api_key_info telemetry suppress_debug_info log_raw_request_response \
        disable_token_counter disable_end_user_cost_tracking disable_end_user_cost_tracking_prometheus_only \
        enable_json_schema_validation langfuse_default_tags datadog_params s3_callback_params \
        gcs_pub_sub_callback_params langsmith_batch_size prometheus_metrics_config \
        require_auth_for_metrics_endpoint custom_prometheus_metadata_labels custom_prometheus_tags \
        prometheus_initialize_budget_metrics print_verbose verbose ui_theme_config aiohttp_trust_env \
        force_ipv4 store_audit_logs add_function_to_prompt",
    ),
];

/// `general_settings`.
pub(super) const GENERAL: &[Group] = &[
    lost(
        "keys live in LiteLLM's database, which is not read",
        "export them and import again with --keys FILE: docs/import-litellm.md says how",
        "database_url",
    ),
    lost(
        "models may live in LiteLLM's database, which is not read",
        "GET /model/info lists them; write those into model_list",
        "store_model_in_db supported_db_objects",
    ),
    lost(
        "requests at once are not limited, and sizes only by Envoy",
        "a TokenPolicy holds callers to tokens",
        "\
        max_parallel_requests global_max_parallel_requests max_request_size_mb max_response_size_mb \
        max_in_flight_requests_per_worker max_queued_requests_per_worker",
    ),
    lost(
        "there is nothing like it here",
        "claims of a Consumer take verified JWTs; filters of the HTTPRoute and Envoy do the rest",
        "\
        custom_auth custom_key_generate custom_sso custom_ui_sso_sign_in_handler enable_jwt_auth \
        litellm_jwtauth enable_oauth2_auth enable_oauth2_proxy_auth oauth2_config_mappings public_routes \
        admin_only_routes allowed_routes allowed_ips use_x_forwarded_for role_permissions \
        service_account_settings litellm_key_header_name user_header_name user_header_mappings \
        enforce_user_param pass_through_endpoints completion_model infer_model_from_keys \
        forward_client_headers_to_llm_api forward_openai_org_id allow_client_side_credentials \
        configurable_clientside_auth_params reject_clientside_metadata_tags",
    ),
    lost(
        "no manager of keys is asked",
        "a Secret of Kubernetes, or `file:` and `env:` in a folder",
        "key_management_system key_management_settings use_azure_key_vault use_google_kms use_aws_kms",
    ),
    lost(
        "no alerts are sent",
        "Prometheus metrics of tollgate and Envoy",
        "\
        alerting alerting_threshold alert_types alert_to_webhook_url alerting_args spend_report_frequency \
        slack_webhook_url",
    ),
    lost("there is nothing like it here", "", "default_team_disabled disable_budget_reservation enforced_params"),
    told(
        "it is about LiteLLM itself",
        "",
        "\
        database_connection_pool_limit database_connection_timeout database_type database_args \
        allow_requests_on_db_unavailable proxy_batch_write_at proxy_budget_rescheduler_min_time \
        proxy_budget_rescheduler_max_time proxy_config_sync_interval disable_spend_logs \
        disable_spend_updates disable_error_logs disable_reset_budget disable_adding_master_key_hash_to_db \
        disable_master_key_return disable_retry_on_max_parallel_request_limit_error \
        disable_prisma_schema_update store_prompts_in_spend_logs maximum_spend_logs_retention_period \
        maximum_spend_logs_retention_interval user_api_key_cache_ttl background_health_checks \
        health_check_interval health_check_details health_check_concurrency use_redis_transaction_buffer \
        use_shared_health_check salt_key ui_access_mode ui_username ui_password disable_ui ui_settings \
        ui_logo_path proxy_base_url token_rate_limit_type otel cache_control \
        use_client_credentials_pass_through_routes allow_user_auth disable_load_balancing experimental \
        always_include_stream_usage enable_health_check_routing coordination_redis",
    ),
];

/// A key of an export.
pub(super) const KEY: &[Group] = &[
    lost(
        "there are no budgets in money",
        "limits of a TokenPolicy are in tokens; tollgate usage has what was used",
        "\
        max_budget soft_budget budget_duration model_max_budget litellm_budget_table budget_id \
        team_max_budget user_max_budget budget_limits",
    ),
    lost(
        "requests are not limited by their number",
        "a TokenPolicy limits tokens",
        "\
        rpm_limit max_parallel_requests rpm_limit_per_model tpm_limit_per_model model_rpm_limit \
        model_tpm_limit rpm_limit_type tpm_limit_type team_tpm_limit team_rpm_limit user_tpm_limit \
        user_rpm_limit",
    ),
    lost(
        "not kept: limits by model, tags and guardrails may stand in it",
        "labels of the Consumer serve as scopes of a TokenPolicy: Label/NAME",
        "metadata",
    ),
    lost(
        "there is nothing like it here",
        "",
        "\
        organization_id project_id agent_id object_permission object_permission_id access_group_ids policies \
        guardrails permissions aliases config router_settings allowed_routes allowed_cache_controls \
        allowed_model_region tags prompts end_user_id",
    ),
    lost("there is nothing like it here", "keys for LiteLLM's own management have no use here", "user_role key_type"),
];

/// What LiteLLM keeps of a key for itself.
pub(super) const KEY_BOOKS: &str = "\
    spend key_name created_at created_by updated_at updated_by last_active last_refreshed_at \
    budget_reset_at model_spend soft_budget_cooldown litellm_organization_table litellm_budget_table_id \
    user user_email team_alias team_spend rotation_count last_rotation_at key_rotation_at auto_rotate \
    rotation_interval litellm_verification_token_id key created_by_user api_key user_spend \
    team_member_spend request_route parent_otel_span via_virtual_key budget_fallbacks end_user_spend";
