# What the batch scripts of this folder share; they source it.
# shellcheck shell=bash

# Edit here what every job needs first, such as `module load` lines.
if [[ -z ${VIRTUAL_ENV:-} && -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi

# Runs a command in the job's tasks (srun), their output in <folder>/<task>.log.
#
# Slurm sends SIGUSR1 to the batch script some minutes before the time limit (--signal=B:USR1@...).
# The tasks get it, too: a training saves its state and stops, a sweep is ended, its rows are written
# already.  Then, unless all was done just in time, the job goes back to the queue under the same
# number and goes on later.  A job that fails or is cancelled is not requeued.
run_tasks() {
    local folder=$1 step status warnings=0 warnings_before
    shift
    mkdir -p "$folder"
    trap 'warnings=$((warnings + 1)); scancel --signal=USR1 "$SLURM_JOB_ID" || true' USR1

    echo "$(date): job $SLURM_JOB_ID on $SLURM_JOB_NODELIST: ${*@Q} (output: $folder/)"
    srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        --open-mode=append --output="$folder/%t.log" "$@" &
    step=$!
    while true; do
        warnings_before=$warnings status=0
        wait "$step" || status=$?
        # The trap ends `wait`, but not the tasks.
        if [[ $warnings -eq $warnings_before ]]; then break; fi
    done

    if [[ $warnings -gt 0 && $status -ne 0 ]]; then
        echo "$(date): stopped before the time limit (status $status), requeued"
        scontrol requeue "$SLURM_JOB_ID"
        sleep 60 # Slurm ends this script
    fi
    echo "$(date): ended with status $status"
    return "$status"
}
