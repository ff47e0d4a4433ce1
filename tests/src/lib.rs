//! The harness of the end-to-end tests, on real parts:
//!
//! ```text
//! official SDKs (sdk), raw HTTP (client)
//!        |
//! tollgate run = control plane + Envoy with the filter (gateway), in one form or the other (filter)
//!        |
//! a recording reverse proxy (tap), which can also fail on demand
//!        |
//! llama.cpp with a small real model (llm)
//! ```
//!
//! Only faults are made up, because a real model cannot be told to fail. Tests assert outcomes
//! (statuses, bodies, rows of the admin API), wait in bounded polls and measure no time.

pub mod admin;
pub mod browser;
pub mod cli;
pub mod client;
pub mod cluster_bench;
pub mod collector;
pub mod config;
pub mod elsewhere;
pub mod envoy_admin;
pub mod filter;
pub mod gateway;
pub mod istiod;
pub mod jwt;
pub mod lab;
pub mod llm;
pub mod mesh;
pub mod meshed;
pub mod poll;
pub mod process;
pub mod prometheus;
pub mod scripts;
pub mod sdk;
pub mod soak;
pub mod tap;
pub mod tools;
pub mod usage;
pub mod xxh64;
