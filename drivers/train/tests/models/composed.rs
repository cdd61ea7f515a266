//! Models whose operations are composed, beside the kernels: gradients of every variable, text, checkpoints.

use candle_core::Device;
use train::ops::Kernels;
use train::parameters::Place;

use super::*;

/// The same model twice: with composed operations, and with the kernels.
fn both(config: &str, dtype: DType) -> [Box<dyn Model>; 2] {
    [Kernels::Composed, Kernels::Fused].map(|kernels| {
        let place = Place { kernels, ..Place::on(Device::Cpu) };
        models::build_at(&place, &ModelConfig::from_json(config).unwrap(), dtype, 11).unwrap()
    })
}

#[test]
fn every_variable_gets_the_gradient_that_the_kernels_give_it() {
    for config in CONFIGS {
        let both = both(config, DType::F64);
        for checkpoint in [false, true] {
            let pass = Pass { checkpoint, ..Pass::training(1, 2) };
            let [found, wanted] = both.each_ref().map(|model| {
                let found = gradients(&**model, &[batch(config, 0..2), batch(config, 2..4)], &pass);
                all(&**model, &found)
            });
            for (parameter, found) in both[0].parameters().iter().zip(&found) {
                let there = found.len() == parameter.count() && found.iter().all(|g| g.is_finite());
                assert!(there || !parameter.trainable, "{config}: none for {}", parameter.name());
            }
            assert_close(&found, &wanted, 1e-10, config);
        }
    }
}

#[test]
fn losses_and_gradients_in_f32_are_those_of_the_kernels() {
    for config in CONFIGS {
        let both = both(config, DType::F32);
        let pass = Pass::training(1, 2);
        let [found, wanted] = both.each_ref().map(|model| {
            let loss = model.loss(&batch(config, 0..4), &pass).unwrap().mean();
            (loss, all(&**model, &gradients(&**model, &[batch(config, 0..4)], &pass)))
        });
        assert!((found.0 - wanted.0).abs() < 1e-5, "{config}: {} and {}", found.0, wanted.0);
        // Sums in another order; some gradients are above 10.
        for (found, wanted) in found.1.iter().flatten().zip(wanted.1.iter().flatten()) {
            assert!((found - wanted).abs() < 2e-5 * (1.0 + wanted.abs()), "{config}: {found} and {wanted}");
        }
    }
}

#[test]
fn answers_and_texts_are_those_of_the_kernels() {
    let sampling = Sampling { max_tokens: 6, ..Sampling::default() };
    for config in CONFIGS {
        let both = both(config, DType::F64);
        let logits = both.each_ref().map(|model| {
            let logits = model.logits(&batch(config, 0..4), &Pass::evaluation()).unwrap();
            vec![numbers(&logits)]
        });
        assert_close(&logits[0], &logits[1], 1e-10, config);
        if config.contains("bert") {
            continue;
        }
        let two = config.contains("marian") || config.contains("t5");
        let prompts = if two { vec![vec![0], vec![0]] } else { vec![vec![3, 4], vec![5, 6, 7]] };
        let sources = two.then(|| vec![vec![5, 6, 7], vec![8]]);
        let texts = both
            .each_ref()
            .map(|model| generate(&**model, &prompts, sources.as_deref(), &sampling, |_| ()).unwrap());
        assert_eq!(texts[0], texts[1], "{config}");
    }
}

/// Some steps with one, then some with the other that goes on from its weights and state: as a run that goes on on another
/// device does.
#[test]
fn training_goes_on_between_devices() {
    let optimisers: [fn() -> Box<dyn Optimiser>; 4] = [
        || Box::new(Adam::default()),
        || Box::new(Adam::new([0.9, 0.99], 1e-8, 0.1)),
        || Box::new(Sgd::new(0.9, true, 0.1)),
        || Box::new(Sgd::new(0.0, false, 0.1)),
    ];
    let step = |model: &dyn Model, optimiser: &mut dyn Optimiser, number: u64| {
        let pass = Pass::training(1, number);
        let mut found = gradients(model, &[batch(CONFIGS[0], 0..4)], &pass);
        found.clip(1.0).unwrap();
        optimiser.step(model.parameters(), &found, 1e-2).unwrap();
    };
    for make in optimisers {
        let [composed, kernels] = both(CONFIGS[0], DType::F64);
        let (alone, mut of_alone) = (model(CONFIGS[0]), make());
        (0..6).for_each(|number| step(&*alone, &mut *of_alone, number));
        let mut former: Option<(&dyn Model, Box<dyn Optimiser>)> = None;
        for (part, here) in [&composed, &kernels, &composed].into_iter().enumerate() {
            let mut optimiser = make();
            if let Some((there, before)) = &former {
                here.parameters().load(&there.parameters().tensors()).unwrap();
                optimiser.load_state(here.parameters(), &before.state(there.parameters()).unwrap()).unwrap();
            }
            let first = 2 * part as u64;
            (first..first + 2).for_each(|number| step(&**here, &mut *optimiser, number));
            former = Some((&**here, optimiser));
        }
        let [found, wanted] = [&composed, &alone]
            .map(|model| model.parameters().iter().map(|p| numbers(p.var().as_tensor())).collect::<Vec<_>>());
        assert_close(&found, &wanted, 1e-10, of_alone.kinds().first().unwrap_or(&"descent"));
    }
}
