// Package train runs the training of one model: phases of steps with an optimizer and a schedule, validation after every
// epoch, checkpoints that survive a crash, and the run folder that train leaves and the other commands read.
//
// The same config, seed and instruction tier give the same bytes in model.safetensors, model.narrow and metrics.jsonl, for
// any number of workers and however often the run was killed and resumed: batches, updates and reductions depend on
// (seed, phase, epoch, step) alone, and clocks go to timing.jsonl.
//
//	run/config.yaml         the resolved config             run/checkpoint/      one file per phase
//	run/metrics.jsonl       a line per epoch                run/model.safetensors  float32 masters and scales
//	run/timing.jsonl        clocks                          run/model.narrow       the frozen model
//	run/run.json            precision, instruction tier, Go version
package train
