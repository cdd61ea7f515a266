//! Optimisers with groups of parameters beside PyTorch's; `tests/peers/groups.py` made the reference values.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, safetensors};

use crate::gradients::Gradients;
use crate::parameters::{Init, Parameters};
use crate::spec::{OptimiserSpec, ScheduleSpec};

const STEPS: u64 = 20;

/// The groups that the script has, with the rates of RULE.
const GROUPS: &str = r#"groups: [
    (names: ["wte"], lr: 0.003),
    (names: ["h.0."], weight_decay: 0.3),
    (names: ["head"], lr: 0.05, weight_decay: 0.2, decay_biases: true),
]"#;

fn fixture() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/groups.safetensors");
    safetensors::load(path, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Trains the script's parameters with its gradients, and returns how far off the worst number is.
fn away(rule: &str, spec: &str) -> f64 {
    let fixture = fixture();
    let spec = spec.replace("GROUPS", GROUPS);
    let spec: OptimiserSpec = ron::Options::default()
        .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
        .from_str(&spec)
        .unwrap();
    let mut parameters = Parameters::new(DType::F64, 0);
    let mut names: Vec<&str> = fixture.keys().filter_map(|name| name.strip_prefix("weight:")).collect();
    names.sort_unstable();
    for name in &names {
        parameters.add(*name, fixture[&format!("weight:{name}")].dims(), Init::Zeros).unwrap();
    }
    let weights = names.iter().map(|name| ((*name).to_owned(), fixture[&format!("weight:{name}")].clone()));
    assert!(parameters.load(&weights.collect()).unwrap().missing.is_empty());
    spec.group(&mut parameters).unwrap();
    let schedule = ScheduleSpec::Cosine { warmup: 4, floor: 0.1 }.build(spec.rate(), STEPS);
    let (mut optimiser, mut gradients) = (spec.build(), Gradients::new(&parameters).unwrap());
    for step in 0..STEPS {
        for (place, name) in names.iter().enumerate() {
            let all = &fixture[&format!("gradient:{name}")];
            gradients.set(place, &numbers(&all.get(step as usize).unwrap())).unwrap();
        }
        optimiser.step(&parameters, &gradients, schedule.rate(step)).unwrap();
    }
    let off = |name: &&str| {
        let (ours, theirs) =
            (numbers(parameters.get(name).unwrap().var()), &fixture[&format!("{rule}:{name}")]);
        ours.iter().zip(numbers(theirs)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    names.iter().map(off).fold(0.0, f64::max)
}

/// What comes of a parameter of each name when both are trained with these gradients.
fn trained(spec: &str) -> [Vec<f64>; 2] {
    let spec: OptimiserSpec = ron::Options::default()
        .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
        .from_str(spec)
        .unwrap();
    let mut parameters = Parameters::new(DType::F64, 5);
    for name in ["own", "rest"] {
        parameters.add(name, &[2, 3], Init::Normal(1.0)).unwrap();
    }
    spec.group(&mut parameters).unwrap();
    let (mut optimiser, mut gradients) = (spec.build(), Gradients::new(&parameters).unwrap());
    for step in 0..STEPS {
        for place in 0..2 {
            let gradient: Vec<f64> = (0..6).map(|n| ((step * 7 + n) as f64).sin()).collect();
            gradients.set(place, &gradient).unwrap();
        }
        optimiser.step(&parameters, &gradients, spec.rate()).unwrap();
    }
    ["own", "rest"].map(|name| numbers(parameters.get(name).unwrap().var()))
}

#[test]
fn group_with_betas_of_its_own_is_trained_as_an_optimiser_with_these_trains() {
    for rule in ["Adam", "AdamW"] {
        let of = |betas: &str, groups: &str| trained(&format!("{rule}(lr: 0.01, betas: {betas}{groups})"));
        let grouped = of("(0.9, 0.95)", ", groups: [(names: [\"own\"], betas: (0.5, 0.7))]");
        let (usual, own) = (of("(0.9, 0.95)", ""), of("(0.5, 0.7)", ""));
        assert_eq!(grouped, [own[0].clone(), usual[1].clone()], "{rule}");
        assert_ne!(own[0], usual[0]);
    }
}

#[test]
fn adam_has_the_betas_of_pytorch() {
    assert_eq!(trained("Adam(lr: 0.01)"), trained("Adam(lr: 0.01, betas: (0.9, 0.999))"));
    assert_ne!(trained("Adam(lr: 0.01)"), trained("Adam(lr: 0.01, betas: (0.9, 0.99))"));
}

#[test]
fn groups_of_parameters_are_trained_as_pytorch_trains_them() {
    for (rule, spec) in [
        ("adamw", "AdamW(lr: 0.01, betas: (0.9, 0.95), weight_decay: 0.1, GROUPS)"),
        ("adam", "Adam(lr: 0.01, betas: (0.9, 0.95), weight_decay: 0.1, GROUPS)"),
        ("sgd", "Sgd(lr: 0.01, momentum: 0.9, nesterov: true, weight_decay: 0.1, GROUPS)"),
    ] {
        let away = away(rule, spec);
        assert!(away < 1e-12, "{rule}: {away:e}");
        let without = self::away(rule, &spec.replace(", GROUPS", ""));
        assert!(without > 1e-3, "{rule}: groups change nothing: {without:e}");
    }
}
