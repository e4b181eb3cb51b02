//! `assay api-key`: the keys of a router that asks for them, also while it runs.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use assay_client::{cor, parse_cor};
use assay_router::keys::{
    file::KeyFile,
    key::{ApiKey, Limits, Period},
    usage::{Usage, usages},
};
use serde_json::{Value, json};

use crate::{
    args::{ApiKeyCommand, ApiKeyCreateArgs, ApiKeyRouter, BudgetPeriod, Global},
    network::data_folder,
    ui,
};

/// Where a router keeps its data, in the network's folder: this and its address.
const ROUTER_FOLDER: &str = "router-";
const DAY_S: u64 = 24 * 3600;

pub async fn run(global: &Global, command: ApiKeyCommand) -> Result<()> {
    match command {
        ApiKeyCommand::Create(args) => create(global, args),
        ApiKeyCommand::List(router) => list(global, &router),
        ApiKeyCommand::Show(args) => show(global, &args.router, &args.id),
        ApiKeyCommand::Revoke(args) => revoke(global, &args.router, &args.id),
    }
}

fn create(global: &Global, args: ApiKeyCreateArgs) -> Result<()> {
    let file = KeyFile::open(&folder(global, &args.router)?)?;
    let expires = |days: u32| now_s().saturating_add(u64::from(days) * DAY_S);
    let limits = Limits {
        budget: args.budget.as_deref().map(parse_cor).transpose()?,
        period: args.per.map(period),
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
        expires_s: args.days.map(expires),
        models: args.models,
    };
    let (key, secret) = file.create(&args.name, limits)?;
    let mut made = key_json(&key);
    made["secret"] = json!(secret.text());
    ui::show(global.json, &made, |_| {
        format!(
            "{}\n{}\nThis is the only time that the key is shown. Clients send it as their API key.",
            key.id,
            secret.text()
        )
    })
}

fn list(global: &Global, router: &ApiKeyRouter) -> Result<()> {
    let folder = folder(global, router)?;
    let (keys, usages) = (KeyFile::open(&folder)?.all()?, usages(&folder)?);
    let total = |key: &ApiKey| {
        let periods = usages.get(&key.id).map(|periods| periods.values());
        periods.into_iter().flatten().fold(Usage::default(), sum)
    };
    let rows: Vec<Value> = keys
        .iter()
        .map(|(_, key)| {
            let mut row = key_json(key);
            row["used"] = usage_json(&total(key));
            row
        })
        .collect();
    ui::show(global.json, &rows, |_| {
        let line = |(_, key): &(_, ApiKey)| {
            let used = total(key);
            let state = state(key);
            format!(
                "{}  {state:<8} {:>6} answers  {:>14}  {}",
                key.id,
                used.tasks,
                cor_of(used.spent),
                key.name
            )
        };
        match keys.is_empty() {
            true => "there is no key: make one with `assay api-key create NAME`".into(),
            false => keys.iter().map(line).collect::<Vec<_>>().join("\n"),
        }
    })
}

fn show(global: &Global, router: &ApiKeyRouter, id: &str) -> Result<()> {
    let folder = folder(global, router)?;
    let keys = KeyFile::open(&folder)?.all()?;
    let key = keys.into_iter().map(|(_, key)| key).find(|key| key.id == id);
    let key = key.with_context(|| no_such_key(id))?;
    let periods = usages(&folder)?.remove(id).unwrap_or_default();
    let mut shown = key_json(&key);
    shown["used"] = periods
        .iter()
        .map(|(period, usage)| {
            let mut usage = usage_json(usage);
            usage["period"] = json!(period);
            usage
        })
        .collect();
    ui::show(global.json, &shown, |_| {
        let mut lines = vec![format!("{}  {}  {}", key.id, state(&key), key.name)];
        let Limits { budget, requests_per_minute, tokens_per_minute, .. } = &key.limits;
        if let Some(budget) = budget {
            let per =
                key.limits.period.map_or(String::new(), |period| format!(" per {}", period.name()));
            lines.push(format!("budget: {}{per}", cor_of(*budget)));
        }
        for (what, limit) in [("requests", requests_per_minute), ("tokens", tokens_per_minute)] {
            lines.extend(limit.map(|limit| format!("{what} a minute: {limit}")));
        }
        if !key.limits.models.is_empty() {
            lines.push(format!("models: {}", key.limits.models.join(", ")));
        }
        lines.extend(periods.iter().map(|(period, used)| {
            format!(
                "period {period}: {} answers, {} prompt tokens, {} answer tokens, {} spent, {} held",
                used.tasks, used.prompt_tokens, used.output_tokens, cor_of(used.spent), cor_of(used.held)
            )
        }));
        lines.join("\n")
    })
}

fn revoke(global: &Global, router: &ApiKeyRouter, id: &str) -> Result<()> {
    let key = KeyFile::open(&folder(global, router)?)?.revoke(id)?;
    let key = key.with_context(|| no_such_key(id))?;
    ui::show(global.json, &key_json(&key), |_| format!("{id} is revoked"))
}

/// The folder of the router whose keys are meant.
fn folder(global: &Global, router: &ApiKeyRouter) -> Result<PathBuf> {
    let data = data_folder(global.data.as_deref())?;
    if let Some(address) = router.router {
        return Ok(data.join(format!("{ROUTER_FOLDER}{address}")));
    }
    let entries = std::fs::read_dir(&data).with_context(|| {
        format!("{} cannot be read: name the network's folder with --data", data.display())
    })?;
    let mut routers: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| name.starts_with(ROUTER_FOLDER))
        })
        .collect();
    match (routers.pop(), routers.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => bail!("no router ran in {}: name it with --router ADDRESS", data.display()),
        _ => bail!("several routers ran in {}: name one with --router ADDRESS", data.display()),
    }
}

fn no_such_key(id: &str) -> String {
    format!("there is no key {id}: see `assay api-key list`")
}

fn period(period: BudgetPeriod) -> Period {
    match period {
        BudgetPeriod::Day => Period::Day,
        BudgetPeriod::Week => Period::Week,
        BudgetPeriod::Month => Period::Month,
    }
}

fn state(key: &ApiKey) -> &'static str {
    match (key.revoked_s, key.limits.expires_s) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now_s() => "expired",
        _ => "valid",
    }
}

fn sum(mut all: Usage, one: &Usage) -> Usage {
    all.tasks += one.tasks;
    all.prompt_tokens += one.prompt_tokens;
    all.output_tokens += one.output_tokens;
    all.spent = all.spent.saturating_add(one.spent);
    all.held = all.held.saturating_add(one.held);
    all
}

/// Amounts are texts: they do not fit the numbers of most JSON readers.
fn usage_json(usage: &Usage) -> Value {
    json!({
        "tasks": usage.tasks,
        "prompt_tokens": usage.prompt_tokens,
        "output_tokens": usage.output_tokens,
        "spent": usage.spent.to_string(),
        "held": usage.held.to_string(),
    })
}

fn key_json(key: &ApiKey) -> Value {
    let limits = &key.limits;
    json!({
        "id": key.id,
        "name": key.name,
        "state": state(key),
        "created_s": key.created_s,
        "revoked_s": key.revoked_s,
        "expires_s": limits.expires_s,
        "budget": limits.budget.map(|budget| budget.to_string()),
        "period": limits.period.map(Period::name),
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "models": limits.models,
    })
}

fn cor_of(amount: u128) -> String {
    cor(alloy::primitives::U256::from(amount))
}

fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::Path};

    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn global(data: &Path) -> Global {
        let argv: [&OsStr; 5] = [
            "assay".as_ref(),
            "--data".as_ref(),
            data.as_ref(),
            "api-key".as_ref(),
            "list".as_ref(),
        ];
        Cli::parse_from(argv).global
    }

    #[test]
    fn the_only_router_of_a_folder_is_meant() {
        let data = tempfile::tempdir().unwrap();
        let (global, any) = (global(data.path()), ApiKeyRouter { router: None });
        assert!(folder(&global, &any).unwrap_err().to_string().contains("--router"));
        let address = alloy::primitives::Address::repeat_byte(0xab);
        let named = folder(&global, &ApiKeyRouter { router: Some(address) }).unwrap();
        std::fs::create_dir(&named).unwrap();
        assert_eq!(folder(&global, &any).unwrap(), named);
        std::fs::create_dir(data.path().join("router-0x1")).unwrap();
        assert!(folder(&global, &any).unwrap_err().to_string().contains("several"));
    }

    #[tokio::test]
    async fn a_key_is_made_and_revoked() {
        let data = tempfile::tempdir().unwrap();
        let global = global(data.path());
        let router = ApiKeyRouter { router: Some(alloy::primitives::Address::ZERO) };
        let args = ApiKeyCreateArgs {
            router: router.clone(),
            name: "team".into(),
            budget: Some("2.5".into()),
            per: Some(BudgetPeriod::Month),
            requests_per_minute: Some(60),
            tokens_per_minute: None,
            days: Some(1),
            models: vec!["assay-demo".into()],
        };
        run(&global, ApiKeyCommand::Create(args)).await.unwrap();
        let file = KeyFile::open(&folder(&global, &router).unwrap()).unwrap();
        let (_, key) = file.all().unwrap().remove(0);
        assert_eq!(
            (key.limits.budget, key.limits.period),
            (Some(25 * 10_u128.pow(17)), Some(Period::Month))
        );
        assert_eq!(state(&key), "valid");
        list(&global, &router).unwrap();
        show(&global, &router, &key.id).unwrap();
        revoke(&global, &router, &key.id).unwrap();
        assert_eq!(state(&file.all().unwrap()[0].1), "revoked");
        assert!(show(&global, &router, "key_x").is_err());
    }
}
