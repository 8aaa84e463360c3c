#!/usr/bin/env bash
# Run a command on every host of a TPU slice on GKE, as a JobSet:
#   IMAGE=REGISTRY/tfm HOSTS=4 TOPOLOGY=4x4 bash scripts/launch/jobset.sh tfm train --config=quickstart --workdir=/runs/1
# DRY=1 prints the manifest. IMAGE has this package with jax[tpu]; the claim VOLUME is mounted at /runs.
# Exit statuses 1, 2 and 130 end the JobSet; others restart it, from the last checkpoint. Not tested on a cluster.
set -euo pipefail
: "${1:?usage: IMAGE=... jobset.sh COMMAND...}" "${IMAGE:?set IMAGE to an image with tfm and jax[tpu]}"
command=$(python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@")

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: ${NAME:-tfm}
spec:
  failurePolicy:
    maxRestarts: ${RESTARTS:-10}
    rules:
      - name: mistakes
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: train
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          parallelism: ${HOSTS:-1}
          completions: ${HOSTS:-1}
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: { containerName: tfm, operator: In, values: [1, 2, 130] }
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 300
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: ${ACCELERATOR:-tpu-v5-lite-podslice}
                cloud.google.com/gke-tpu-topology: "${TOPOLOGY:-2x2}"
              containers:
                - name: tfm
                  image: ${IMAGE}
                  command: ${command}
                  env:
                    - { name: TFM_CACHE, value: /runs/cache }
                  resources:
                    limits: { google.com/tpu: ${CHIPS:-4} }
                  volumeMounts:
                    - { name: runs, mountPath: /runs }
              volumes:
                - name: runs
                  persistentVolumeClaim: { claimName: ${VOLUME:-tfm-runs} }
YAML
}

if [ -n "${DRY:-}" ]; then
  manifest
else
  manifest | kubectl apply -f -
fi
