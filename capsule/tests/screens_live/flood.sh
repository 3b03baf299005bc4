# Much at once: what is left is what counts.
seq 1 20000; step
i=0; while [ $i -lt 400 ]; do printf '\033[3%dmcolour %d \033[1m%s\033[m\r\n' $((i % 8)) $i 'some more text that makes the line rather long so that it must wrap at the edge of the pane'; i=$((i + 1)); done; step
i=0; while [ $i -lt 2000 ]; do printf '\033[%d;%dH\033[4%dm%d' $((i % 22 + 1)) $((i * 7 % 76 + 1)) $((i % 8)) $((i % 1000)); i=$((i + 1)); done; printf '\033[m'; step
printf '\033[2J\033[H'; seq 1 3000 | tr '\n' ' '; step
