# Every way to look, on text and on blanks, and how erasing takes the colour with it.
printf '\033[1mbold\033[m \033[2mdim\033[m \033[3mitalic\033[m \033[4munder\033[m \033[7minverse\033[m \033[9mstruck\033[m\r\n'
printf '\033[1;3;4;7mall\033[22mno bold\033[23mno italic\033[24mno line\033[27mnone\033[m\r\n'; step
i=0; while [ $i -lt 256 ]; do printf '\033[48;5;%dm \033[38;5;%dmx' $i $i; i=$((i + 1)); done; printf '\033[m\r\n'; step
i=0; while [ $i -lt 76 ]; do printf '\033[48;2;%d;%d;%dm.' $((i * 3)) $((255 - i * 3)) 100; i=$((i + 1)); done; printf '\033[m\r\n'; step
i=0; while [ $i -lt 8 ]; do printf '\033[3%d;10%dmab\033[9%d;4%dmcd' $i $i $i $i; i=$((i + 1)); done; printf '\033[m\r\n'; step
printf '\033]8;;https://example.com/a\033\\linked\033]8;;\033\\ \033]8;id=1;http://example.com\007one\033]8;;\007two \033]8;;file:///etc\033\\no link\033]8;;\033\\\r\n'; step
printf '\033[45m\033[12;1H\033[K erased to the end\033[13;40H\033[1K\033[14;1H\033[2K\033[m'; step
printf '\033[7m\033[15;1Hinverse blanks   \033[m\033[4m\033[16;1Hunderlined blanks     \033[m'; step
printf '\033[46m\033[18;1H\033[J\033[m'; step
printf '\033[19;1Habcdefghij\033[19;4H\033[41m\033[3X\033[m\033[20;1Habcdefghij\033[20;4H\033[3P\033[21;1Habcdefghij\033[21;4H\033[3@'; step
printf '\033[1;1H\033[1J'; step
printf '\033[38:5:200mindexed\033[m \033[38;2;300;0;0mtoo large\033[m'; step
