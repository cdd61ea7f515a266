//! The order in which services are started: whether there is one.

use std::collections::BTreeMap;

use thiserror::Error;

use super::ServiceConfig;

/// Why the services of a configuration cannot all be started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OrderError {
    /// Two have one name.
    #[error("two services are called `{0}`; rename one")]
    Twice(String),
    /// One comes after what is not there.
    #[error(
        "service `{service}` names `{unknown}` in {field}, which is not declared; declare it or leave it out"
    )]
    Unknown { service: String, field: &'static str, unknown: String },
    /// Some wait for each other.
    #[error("services wait for each other in a circle: {}; leave out one `after` or `requires`", .0.join(" → "))]
    Cycle(Vec<String>),
}

/// What is known of a service on the way through all of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It is on the way from the first one to here.
    OnTheWay,
    /// No circle is behind it.
    Through,
}

/// Checks that services can be started one after another.
///
/// # Errors
///
/// A name is there twice or not at all, or some wait for each other, which are named in their order.
pub fn check_order(services: &[ServiceConfig]) -> Result<(), OrderError> {
    let mut by_name: BTreeMap<&str, &ServiceConfig> = BTreeMap::new();
    for service in services {
        if by_name.insert(&service.name, service).is_some() {
            return Err(OrderError::Twice(service.name.clone()));
        }
    }
    for service in services {
        for (field, names) in [("requires", &service.requires), ("after", &service.after)] {
            if let Some(unknown) = names.iter().find(|name| !by_name.contains_key(name.as_str())) {
                let (service, unknown) = (service.name.clone(), unknown.clone());
                return Err(OrderError::Unknown { service, field, unknown });
            }
        }
    }
    let mut seen = BTreeMap::new();
    services.iter().try_for_each(|service| walk(&service.name, &by_name, &mut seen))
}

/// Goes to all that come before a service, without recursion: a chain may be as long as there are services.
fn walk<'a>(
    from: &'a str,
    by_name: &BTreeMap<&'a str, &'a ServiceConfig>,
    seen: &mut BTreeMap<&'a str, Seen>,
) -> Result<(), OrderError> {
    if seen.contains_key(from) {
        return Ok(());
    }
    let before = |name: &str| by_name[name].before().map(String::as_str);
    seen.insert(from, Seen::OnTheWay);
    let mut way = vec![(from, before(from))];
    while let Some((name, rest)) = way.last_mut() {
        let name = *name;
        match rest.next() {
            None => {
                seen.insert(name, Seen::Through);
                way.pop();
            }
            Some(next) => match seen.get(next) {
                Some(Seen::Through) => {}
                Some(Seen::OnTheWay) => {
                    let circle = way.iter().map(|(name, _)| *name).skip_while(|name| *name != next);
                    let circle = circle.chain([next]).map(str::to_owned).collect();
                    return Err(OrderError::Cycle(circle));
                }
                None => {
                    seen.insert(next, Seen::OnTheWay);
                    way.push((next, before(next)));
                }
            },
        }
    }
    Ok(())
}
