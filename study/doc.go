// Package study measures what each bit-width costs and what training for it is worth: the same network in float32, after
// post-training quantization (PTQ) and after quantization-aware training (QAT), over several seeds, in one table.
//
// # Cells
//
// A cell is one trained or calibrated network: a seed, a precision and a method.
//
//	none    float32 training as the config says                          the baseline, precision fp32
//	fp32+   none, then the epochs, rates and batches of QAT without      the control: what training longer gives by itself
//	        quantizers
//	ptq     none, calibrated by minmax, percentile and mse; the best on  what costs no training
//	        the validation split is kept
//	qat     ptq, then quantization-aware training                        what training for the integers gives
//
// A variant (compare.variants of the config) is the same network and float model under other settings of quant and qat: each
// has rows of its own, and fp32+ again where its training has another length or rate.
//
// PTQ is given its best method, so that QAT is compared with what a careful user would have without it; only without a
// validation split is it the method of the config. Nothing is chosen
// on the test split: every cell is frozen first and scored on it once, by the engine that ships (integers where the model
// has integers).
//
// # Numbers
//
//	mean, std      of the accuracy in percent over the seeds; std with n-1
//	ci95           half the width of the 95 % interval of the mean, Student's t with n-1 degrees of freedom
//	delta_fp32     mean difference to the fp32 row in points; delta_fp32plus to fp32+
//	paired_delta_ptq, paired_ci95_ptq
//	               QAT minus PTQ of the same precision and seed, in points: mean and half width
//	weight_bytes   weights and their scales as deployed; file_bytes: the whole model.narrow
//	latency_us     median of single examples; throughput: examples per second, median of batches of 64. The engines take
//	               turns, so that a slow moment of the machine hits all alike. First seed's models
//	train_seconds  mean over the seeds of what the row adds: training, calibration for ptq, the extra epochs for fp32+ and
//	               qat
//
// One seed has no spread: std, ci95 and paired_ci95_ptq are then null, and the verdict says so. p_value and
// energy_nj_modelled are null: no test per example and no energy model is applied. A difference is called real when its
// 95 % interval leaves out 0; seeds vary initial weights and the order of the examples, not the data.
//
// # Folder
//
//	compare.json   the table; its keys are the contract of `narrow compare --json`
//	report.html    the same with plot and verdict, one file, no scripts
//	cells/         finished cells: cell.json, model.narrow, and the float masters of fp32
//
// A finished cell is written whole or not at all. Its name carries a hash of the settings that its method depends on, the
// data, the split, the seed, the precision, the method and the instruction tier; with Resume a cell that is there is not
// run again (a float model serves all settings of quant and qat), and one that was interrupted goes on from its last
// checkpoint.
package study
