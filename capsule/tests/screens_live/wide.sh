# Wide characters, combining marks, and what happens to the halves.
printf '日本語 한국어 中文\r\n'; step
printf 'cafe\314\201 a\314\210\314\204 \314\201lone\r\n'; step
printf '\033[3;79H日本\r\n'; step
printf '\033[5;80H語\r\n'; step
printf '日日日日\033[7;2Hx\033[7;5Hy\r\n'; step
printf '\033[8;1H日日日日\033[8;3H\033[K'; step
printf '\033[9;1H日日日日\033[9;2H\033[1P'; step
printf '\033[10;1H日日日日\033[10;4H\033[1@'; step
printf '\033[11;1H日日日日\033[11;4H\033[2X'; step
printf '\033[12;1H\033[41m日\033[42m本\033[m語 😀🎉 →\r\n'; step
printf '\033[13;79Ha\314\201b\314\201c\314\201'; step
printf '\033[15;1H%s' 'é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日é日'; step
printf '\033[18;1Hzero\342\200\213width \342\200\252marks'; step
printf '\033[19;1H\360\237\221\250\342\200\215\360\237\221\251 \360\237\207\251\360\237\207\252 end'; step
printf '\033[21;1Hbroken \303( \342\202 \377 utf8'; step
